//! Tables and bare metadata: the other shapes in which objects are answered.

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use xebec_registry::{Column, ColumnType};
use xebec_types::Status;

use crate::cache::Entry;
use crate::catalog::Target;
use crate::codec::Encoded;
use crate::query::Query;
use crate::verbs::list::{Page, end_list, list_meta};

/// What a row carries beside its cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Include {
    None,
    Metadata,
    Object,
}

/// Makes rows of objects.
pub struct Rows {
    target: Target,
    include: Include,
    headers_sent: bool,
}

impl Rows {
    /// For the objects of a target; `?includeObject` says what rows carry.
    ///
    /// # Errors
    /// 400 for another value.
    pub fn new(target: &Target, query: &Query) -> Result<Self, Status> {
        let include = match query.get("includeObject") {
            "" | "Metadata" => Include::Metadata,
            "None" => Include::None,
            "Object" => Include::Object,
            other => {
                return Err(Status::bad_request(format!("unrecognized includeObject value: {other:?}")));
            }
        };
        Ok(Self { target: target.clone(), include, headers_sent: false })
    }

    fn row(&self, encoded: &Encoded, now: Timestamp) -> Value {
        let mut object = value_of(encoded);
        let version = self.target.version();
        let cells = self.target.resource().strategy.cells(&version.name, &object, now);
        let carried = match self.include {
            Include::None => None,
            Include::Metadata => Some(partial(&mut object)),
            Include::Object => {
                object["apiVersion"] = self.target.api_version().into();
                Some(object)
            }
        };
        let mut row = json!({ "cells": cells });
        if let Some(carried) = carried {
            row["object"] = carried;
        }
        row
    }

    /// A table of one row, as watches send it: only the first one has column definitions.
    pub fn table(&mut self, _entry: &Entry, encoded: &Encoded) -> Value {
        let columns = if self.headers_sent { json!([]) } else { definitions(&self.target.version().columns) };
        self.headers_sent = true;
        let row = self.row(encoded, Timestamp::now());
        let revision = row.pointer("/object/metadata/resourceVersion").cloned();
        json!({
            "kind": "Table",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": { "resourceVersion": revision.unwrap_or_else(|| "".into()) },
            "columnDefinitions": columns,
            "rows": [row],
        })
    }
}

fn definitions(columns: &[Column]) -> Value {
    columns.iter().map(definition).collect()
}

fn definition(column: &Column) -> Value {
    let (kind, format) = match column.kind {
        ColumnType::String => ("string", ""),
        ColumnType::Name => ("string", "name"),
        ColumnType::Integer => ("integer", ""),
        ColumnType::Number => ("number", ""),
        ColumnType::Boolean => ("boolean", ""),
        ColumnType::Date => ("date", ""),
    };
    json!({
        "name": column.name,
        "type": kind,
        "format": format,
        "description": column.description,
        "priority": column.priority,
    })
}

/// A page as a table.
///
/// # Errors
/// 400 for `includeObject`.
pub fn list(target: &Target, page: &Page, query: &Query, now: Timestamp) -> Result<Bytes, Status> {
    let rows = Rows::new(target, query)?;
    let head = format!(
        "{{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{},\"columnDefinitions\":{},\"rows\":[",
        list_meta(page),
        definitions(&target.version().columns)
    );
    Ok(end_list(head.into_bytes(), page, |out, encoded| {
        let written = serde_json::to_writer(out, &rows.row(encoded, now));
        written.expect("invariant: a JSON value serializes");
    }))
}

/// One object as a table.
///
/// # Errors
/// 400 for `includeObject`.
pub fn object(target: &Target, encoded: &Encoded, query: &Query, now: Timestamp) -> Result<Value, Status> {
    let rows = Rows::new(target, query)?;
    Ok(json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": { "resourceVersion": encoded.revision().to_string() },
        "columnDefinitions": definitions(&target.version().columns),
        "rows": [rows.row(encoded, now)],
    }))
}

/// One object's metadata.
pub fn metadata_of(encoded: &Encoded) -> Bytes {
    let mut out = Vec::with_capacity(1024);
    write_metadata(&mut out, encoded);
    out.into()
}

/// Copies the metadata out of the object: clients that want no more are many, and need no parsing.
fn write_metadata(out: &mut Vec<u8>, encoded: &Encoded) {
    out.extend_from_slice(br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#);
    out.extend_from_slice(encoded.metadata());
    out.push(b'}');
}

/// A page as bare metadata.
pub fn metadata_list(page: &Page) -> Bytes {
    let head = format!(
        "{{\"kind\":\"PartialObjectMetadataList\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{},\"items\":[",
        list_meta(page)
    );
    end_list(head.into_bytes(), page, write_metadata)
}

fn partial(object: &mut Value) -> Value {
    let metadata = object.get_mut("metadata").map_or_else(|| Value::Object(Map::new()), Value::take);
    json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata })
}

fn value_of(encoded: &Encoded) -> Value {
    serde_json::from_slice(&encoded.bytes).expect("invariant: encoded objects are JSON")
}
