//! Value checks of custom resources: what JSON schema says beyond the shape.

use std::sync::Arc;

use regex::Regex;
use serde_json::Value;

use crate::schema::Schema;

/// The value checks of one type. An absent check is not made.
#[derive(Debug, Default)]
pub struct Rules {
    /// The type JSON schema demands: `string`, `integer`, `number`, `boolean`, `array`, `object`.
    pub type_name: Option<&'static str>,
    /// Allowed values; empty means any.
    pub enumeration: Vec<Value>,
    /// What a string must match somewhere in it.
    pub pattern: Option<Regex>,
    /// The pattern as written.
    pub pattern_text: String,
    /// Named format of a string.
    pub format: Option<String>,
    /// Lower bound; the flag says that the bound itself is excluded.
    pub minimum: Option<(f64, bool)>,
    /// Upper bound; the flag says that the bound itself is excluded.
    pub maximum: Option<(f64, bool)>,
    /// What a number must be a multiple of.
    pub multiple_of: Option<f64>,
    /// Least characters of a string.
    pub min_length: Option<u64>,
    /// Most characters of a string.
    pub max_length: Option<u64>,
    /// Least items of a list.
    pub min_items: Option<u64>,
    /// Most items of a list.
    pub max_items: Option<u64>,
    /// Least keys of an object.
    pub min_properties: Option<u64>,
    /// Most keys of an object.
    pub max_properties: Option<u64>,
    /// Keys an object must have.
    pub required: Vec<String>,
    /// All of these must hold.
    pub all_of: Vec<Arc<Schema>>,
    /// At least one of these must hold.
    pub any_of: Vec<Arc<Schema>>,
    /// Exactly one of these must hold.
    pub one_of: Vec<Arc<Schema>>,
    /// This must not hold.
    pub not: Option<Arc<Schema>>,
}
