//! `get`: tables, objects and watches.

use std::cmp::Ordering;
use std::sync::Arc;

use clap::Args;
use futures::StreamExt;
use serde_json::Value;

use crate::discovery::{Resource, items, text};
use crate::error::{Error, Result};
use crate::output::jsonpath::Template;
use crate::output::table::{Options, Printer};
use crate::output::{Format, Output, bare, list_of};
use crate::session::{AS_TABLE, Call, Session};
use crate::targets::{self, Files, Found, Target};

/// What to get, and in which namespace.
type Place = (Target, Option<String>);
/// What to get of one kind.
type Group = (Arc<Resource>, Vec<Place>);

/// Flags of `get`.
#[derive(Clone, Debug, Default, Args)]
pub struct GetArgs {
    /// TYPE[,TYPE] [NAME...] or TYPE/NAME...
    pub words: Vec<String>,
    /// Which objects.
    #[command(flatten)]
    pub files: Files,
    /// Label selector, such as `app=web,tier!=db`.
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// Field selector, such as `status.phase=Running`.
    #[arg(long)]
    pub field_selector: Option<String>,
    /// In all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// wide, yaml, json, name, jsonpath=TEMPLATE, custom-columns=SPEC.
    #[arg(short = 'o', long)]
    pub output: Option<String>,
    /// Labels as last column.
    #[arg(long)]
    pub show_labels: bool,
    /// `kind/name` as names.
    #[arg(long)]
    pub show_kind: bool,
    /// Labels to show as columns.
    #[arg(short = 'L', long, value_delimiter = ',')]
    pub label_columns: Vec<String>,
    /// No header line.
    #[arg(long)]
    pub no_headers: bool,
    /// Order by the value at a JSONPath.
    #[arg(long)]
    pub sort_by: Option<String>,
    /// Keep watching after the list.
    #[arg(short = 'w', long)]
    pub watch: bool,
    /// Watch without listing first.
    #[arg(long)]
    pub watch_only: bool,
    /// Succeed when the named object does not exist.
    #[arg(long)]
    pub ignore_not_found: bool,
    /// Read a path of the API as it is.
    #[arg(long)]
    pub raw: Option<String>,
    /// Objects per page; 0 for all at once.
    #[arg(long, default_value_t = 500)]
    pub chunk_size: u32,
}

/// Runs `get`.
pub async fn run(session: &Session, args: GetArgs) -> Result<i32> {
    if let Some(path) = &args.raw {
        session.print(session.text(Call::get(path.as_str())).await?)?;
        return Ok(0);
    }
    let targets = find(session, &args).await?;
    if args.watch || args.watch_only {
        return watch(session, &args, &targets).await;
    }
    match Output::parse(args.output.as_deref())? {
        Output::Table { wide } => tables(session, &args, &targets, wide).await,
        Output::Objects(format) => objects(session, &args, &targets, &format).await,
    }
}

async fn find(session: &Session, args: &GetArgs) -> Result<Vec<Place>> {
    if !args.files.filename.is_empty() || args.files.kustomize.is_some() {
        let mut targets = Vec::new();
        for document in args.files.read(session).await? {
            let Found { resource, namespace, name, .. } = document.locate(session).await?;
            targets.push((Target { resource, name: Some(name) }, namespace));
        }
        return Ok(targets);
    }
    if args.words.is_empty() {
        return Err(Error::Plain(
            "You must specify the type of resource to get. Use \"kubectl api-resources\" for a complete list of \
             supported resources.\n\nerror: Required resource not specified."
                .into(),
        ));
    }
    let namespace = (!args.all_namespaces).then(|| session.namespace.clone());
    let targets = targets::parse(&*session.discovery().await?, &args.words)?;
    let named = targets.iter().any(|target| target.name.is_some());
    if named && (args.selector.is_some() || args.field_selector.is_some()) {
        return Err(Error::client("name cannot be provided when a selector is specified"));
    }
    if named && args.all_namespaces {
        return Err(Error::client("a resource cannot be retrieved by name across all namespaces"));
    }
    Ok(targets.into_iter().map(|target| (target, namespace.clone())).collect())
}

/// The request for a target; named objects of a table are asked for one by one.
fn call(args: &GetArgs, target: &Target, namespace: Option<&str>) -> Call {
    match &target.name {
        Some(name) => Call::get(target.resource.object(namespace, name)),
        None => Call::get(target.resource.collection(namespace))
            .maybe("labelSelector", args.selector.as_deref())
            .maybe("fieldSelector", args.field_selector.as_deref()),
    }
}

/// All pages of a list as one; an object stays what it is.
async fn fetch(
    session: &Session,
    args: &GetArgs,
    target: &Target,
    namespace: Option<&str>,
    table: Option<&str>,
) -> Result<Value> {
    let rows = if table.is_some() { "rows" } else { "items" };
    let page = |token: &str| {
        let mut call = call(args, target, namespace).maybe("continue", Some(token));
        if target.name.is_none() && args.chunk_size > 0 {
            call = call.query("limit", args.chunk_size.to_string());
        }
        match table {
            Some(include) => call.accept(AS_TABLE).maybe("includeObject", Some(include)),
            None => call,
        }
    };
    let mut whole = session.json(page("")).await?;
    let mut token = text(&whole["metadata"]["continue"]);
    while !token.is_empty() {
        let mut next = session.json(page(&token)).await?;
        token = text(&next["metadata"]["continue"]);
        if let (Some(all), Some(more)) = (whole[rows].as_array_mut(), next[rows].as_array_mut()) {
            all.append(more);
        }
        whole["metadata"] = next["metadata"].take();
    }
    Ok(whole)
}

async fn tables(session: &Session, args: &GetArgs, targets: &[Place], wide: bool) -> Result<i32> {
    let sort = args.sort_by.as_deref().map(Template::relaxed).transpose()?;
    let include = if sort.is_some() { "Object" } else { "Metadata" };
    let groups = by_resource(targets);
    let kind = args.show_kind || groups.len() > 1 || args.words.first().is_some_and(|word| word == "all");
    let (mut printed, mut code, mut misses) = (false, 0, Vec::new());
    for (resource, targets) in &groups {
        let options = Options {
            wide,
            namespace: args.all_namespaces && resource.namespaced,
            labels: args.show_labels,
            no_headers: args.no_headers,
            kind,
        };
        let mut whole: Option<Value> = None;
        for (target, namespace) in targets {
            match fetch(session, args, target, namespace.as_deref(), Some(include)).await {
                Ok(table) => merge(&mut whole, as_table(table)),
                Err(error) if error.is_not_found() && target.name.is_some() => {
                    if !args.ignore_not_found {
                        misses.push(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        let Some(mut table) = whole.filter(|table| items(&table["rows"]).next().is_some()) else {
            continue;
        };
        if let Some(path) = &sort {
            sort_by(table["rows"].as_array_mut(), path, |row| &row["object"]);
        }
        if printed && !args.no_headers {
            session.line("")?;
        }
        session.print(Printer::new(options, resource, &args.label_columns).render(&table))?;
        printed = true;
    }
    for miss in &misses {
        session.warn(miss.to_string())?;
        code = 1;
    }
    if !printed && misses.is_empty() && !args.ignore_not_found {
        nothing(session, args, &groups)?;
    }
    Ok(code)
}

fn nothing(session: &Session, args: &GetArgs, groups: &[Group]) -> Result<()> {
    if args.all_namespaces || !groups.iter().any(|(resource, _)| resource.namespaced) {
        session.warn("No resources found")
    } else {
        session.warn(format!("No resources found in {} namespace.", session.namespace))
    }
}

/// Runs of targets of one kind: they share a table.
fn by_resource(targets: &[Place]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for target in targets {
        match groups.iter_mut().find(|(resource, _)| *resource == target.0.resource) {
            Some((_, group)) => group.push(target.clone()),
            None => groups.push((Arc::clone(&target.0.resource), vec![target.clone()])),
        }
    }
    groups
}

fn merge(whole: &mut Option<Value>, mut table: Value) {
    match whole {
        None => *whole = Some(table),
        Some(whole) => {
            if let (Some(all), Some(more)) = (whole["rows"].as_array_mut(), table["rows"].as_array_mut()) {
                all.append(more);
            }
        }
    }
}

/// A server that makes no tables gives objects: their names and ages then.
fn as_table(answer: Value) -> Value {
    if answer["kind"] == "Table" {
        return answer;
    }
    let one = std::slice::from_ref(&answer);
    let objects = answer["items"].as_array().map_or(one, Vec::as_slice);
    let row = |object: &Value| {
        let metadata = &object["metadata"];
        let age = crate::duration::age(&metadata["creationTimestamp"]);
        serde_json::json!({"cells": [metadata["name"], age], "object": object})
    };
    let rows: Vec<Value> = objects.iter().map(row).collect();
    serde_json::json!({"kind": "Table", "columnDefinitions": [{"name": "Name"}, {"name": "Age"}], "rows": rows})
}

fn sort_by(rows: Option<&mut Vec<Value>>, path: &Template, object: impl Fn(&Value) -> &Value) {
    let Some(rows) = rows else { return };
    rows.sort_by(|left, right| {
        let (left, right) = (path.values(object(left)), path.values(object(right)));
        match (left.first(), right.first()) {
            (Some(Value::Number(l)), Some(Value::Number(r))) => {
                l.as_f64().partial_cmp(&r.as_f64()).unwrap_or(Ordering::Equal)
            }
            (Some(l), Some(r)) => natural(&bare(l), &bare(r)),
            (l, r) => l.is_some().cmp(&r.is_some()),
        }
    });
}

/// Numbers within texts count as numbers: `web-2` stands before `web-10`.
fn natural(left: &str, right: &str) -> Ordering {
    let (mut l, mut r) = (left, right);
    loop {
        let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
        let (dl, dr) = (digits(l), digits(r));
        let order = if dl > 0 && dr > 0 {
            let (nl, nr) = (l[..dl].trim_start_matches('0'), r[..dr].trim_start_matches('0'));
            let order = nl.len().cmp(&nr.len()).then_with(|| nl.cmp(nr));
            (l, r) = (&l[dl..], &r[dr..]);
            order
        } else {
            let (mut cl, mut cr) = (l.chars(), r.chars());
            let order = cl.next().cmp(&cr.next());
            (l, r) = (cl.as_str(), cr.as_str());
            order
        };
        if order != Ordering::Equal || (l.is_empty() && r.is_empty()) {
            return order;
        }
    }
}

async fn objects(session: &Session, args: &GetArgs, targets: &[Place], format: &Format) -> Result<i32> {
    let (mut found, mut misses) = (Vec::new(), Vec::new());
    let single = matches!(targets, [(Target { name: Some(_), .. }, _)]);
    for (target, namespace) in targets {
        match fetch(session, args, target, namespace.as_deref(), None).await {
            Ok(mut answer) => match answer["items"].as_array_mut() {
                Some(list) if target.name.is_none() => found.extend(list.drain(..).map(|mut object| {
                    object["apiVersion"] = target.resource.api_version().into();
                    object["kind"] = target.resource.kind.clone().into();
                    object
                })),
                _ => found.push(answer),
            },
            Err(error) if error.is_not_found() && target.name.is_some() => {
                if !args.ignore_not_found {
                    misses.push(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
    if let Some(path) = &args.sort_by {
        sort_by(Some(&mut found), &Template::relaxed(path)?, |object| object);
    }
    let code = i32::from(!misses.is_empty());
    if let (true, Some(object)) = (single, found.first()) {
        session.print(render(format, object, args)?)?;
    } else if !(single || (found.is_empty() && !misses.is_empty())) {
        session.print(render(format, &list_of(found), args)?)?;
    }
    misses.iter().try_for_each(|miss| session.warn(miss.to_string()))?;
    Ok(code)
}

fn render(format: &Format, object: &Value, args: &GetArgs) -> Result<String> {
    match format {
        Format::Columns(columns) => Ok(columns.render(object, !args.no_headers)),
        other => other.render(object),
    }
}

async fn watch(session: &Session, args: &GetArgs, targets: &[Place]) -> Result<i32> {
    let [(target, namespace)] = targets else {
        return Err(Error::client("you may only specify a single resource type with --watch"));
    };
    let output = Output::parse(args.output.as_deref())?;
    let table = matches!(output, Output::Table { .. }).then_some("Metadata");
    let wide = matches!(output, Output::Table { wide: true });
    let options = Options {
        wide,
        namespace: args.all_namespaces && target.resource.namespaced,
        labels: args.show_labels,
        no_headers: args.no_headers,
        kind: args.show_kind,
    };
    let mut printer = Printer::new(options, &target.resource, &args.label_columns);
    let mut show = |object: Value| match &output {
        Output::Table { .. } => session.print(printer.render(&as_table(object))),
        Output::Objects(Format::Yaml) => session.print(format!("---\n{}", Format::Yaml.render(&object)?)),
        Output::Objects(Format::JsonPath(template)) => session.line(template.render(&object)?),
        Output::Objects(Format::Columns(columns)) => session.print(columns.render(&object, false)),
        Output::Objects(format) => session.print(format.render(&object)?),
    };
    // The list is also what tells from where to watch.
    let list = fetch(session, args, target, namespace.as_deref(), table).await?;
    let version = text(&list["metadata"]["resourceVersion"]);
    let start = if version.is_empty() { first_version(&list) } else { version };
    if !args.watch_only {
        match list["items"].as_array() {
            Some(items) => items.iter().cloned().try_for_each(&mut show)?,
            None => show(list)?,
        }
    }
    let mut selector = args.field_selector.clone();
    if let Some(name) = &target.name {
        selector = Some(format!("metadata.name={name}"));
    }
    let mut call = Call::get(target.resource.collection(namespace.as_deref()))
        .maybe("labelSelector", args.selector.as_deref())
        .maybe("fieldSelector", selector.as_deref())
        .maybe("resourceVersion", Some(&start));
    if let Some(include) = table {
        call = call.accept(AS_TABLE).query("includeObject", include);
    }
    let mut events = session.watch(call).await?;
    while let Some(event) = events.next().await {
        let mut event = event?;
        if event["type"] != "BOOKMARK" {
            show(event["object"].take())?;
        }
    }
    Ok(0)
}

/// The version of the one object of an answer.
fn first_version(answer: &Value) -> String {
    let object = items(&answer["rows"]).next().map_or(answer, |row| &row["object"]);
    text(&object["metadata"]["resourceVersion"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_sort_naturally() {
        let mut names = vec!["web-10", "web-2", "web", "a"];
        names.sort_by(|l, r| natural(l, r));
        assert_eq!(names, ["a", "web", "web-2", "web-10"]);
    }
}
