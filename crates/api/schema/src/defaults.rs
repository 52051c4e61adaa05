//! Defaults: declared ones for custom resources, functions per Go type for built-in kinds.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::{Map, Value};

use crate::schema::{Kind, Node, Schema};

/// Fills in the defaults of one object of a built-in type.
pub type DefaultFn = fn(&mut Map<String, Value>);

/// Default functions by short type name (`core.v1.Container`, `core.v1.PodSpec`, `apps.v1.Deployment`).
///
/// A function is called wherever its type appears, parents before children, so that what `core.v1.PodSpec`
/// gets holds in Pods, Deployments and ReplicaSets alike. The function of an inlined struct
/// (`core.v1.VolumeSource`) is called with its parent's object, after the parent's own. Which fields lead to a
/// function is worked out once per kind: the others are not visited.
#[derive(Default)]
pub struct TypeDefaults {
    functions: HashMap<&'static str, Vec<DefaultFn>>,
    plans: RwLock<HashMap<String, Arc<Plan>>>,
}

impl TypeDefaults {
    /// A registry of the given functions; several for one type run in the order given.
    #[must_use]
    pub fn new(functions: impl IntoIterator<Item = (&'static str, DefaultFn)>) -> Self {
        let mut defaults = Self::default();
        for (name, function) in functions {
            defaults.functions.entry(name).or_default().push(function);
        }
        defaults
    }

    /// Names registered that are no built-in type: a typing mistake, to be refused by a test of the registrant.
    pub fn unknown_types(&self) -> impl Iterator<Item = &'static str> {
        self.functions.keys().copied().filter(|name| crate::table::builtin_type(name).is_none())
    }

    fn plan(&self, schema: &Schema) -> Arc<Plan> {
        let plans = self.plans.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = plans.get(&schema.name) {
            return Arc::clone(plan);
        }
        drop(plans);
        let plan = Arc::new(Plan::of(self, schema));
        let mut plans = self.plans.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(plans.entry(schema.name.clone()).or_insert(plan))
    }
}

/// Fills `value` with defaults: those `schema` declares, and those `types` knows for its built-in types.
///
/// Fields that are `null` although they may not be, and have a default, take the default.
pub fn default(value: &mut Value, schema: &Schema, types: &TypeDefaults) {
    if schema.typed {
        let plan = types.plan(schema);
        plan.run(0, value);
    } else if schema.has_defaults {
        declared(value, schema);
    }
}

/// The types below a kind that have functions, and the ways that lead to them. Types may contain themselves, so the
/// steps refer to each other by index.
#[derive(Default)]
struct Plan {
    steps: Vec<Step>,
}

#[derive(Default)]
struct Step {
    functions: Vec<DefaultFn>,
    fields: Vec<(String, usize)>,
    /// The step of every value of a map or item of a list.
    each: Option<usize>,
    useful: bool,
}

impl Plan {
    fn of(defaults: &TypeDefaults, schema: &Schema) -> Self {
        let mut plan = Self::default();
        plan.add(defaults, schema, &mut HashMap::new());
        plan.mark();
        for at in 0..plan.steps.len() {
            let mut step = std::mem::take(&mut plan.steps[at]);
            step.fields
                .retain(|(_, next)| *next != at && plan.steps[*next].useful || *next == at && step.useful);
            step.each = step.each.filter(|next| plan.steps[*next].useful);
            plan.steps[at] = step;
        }
        plan
    }

    fn add(&mut self, defaults: &TypeDefaults, schema: &Schema, known: &mut HashMap<String, usize>) -> usize {
        if let Some(at) = known.get(&schema.name).filter(|_| schema.object().is_some()) {
            return *at;
        }
        let at = self.steps.len();
        self.steps.push(Step::default());
        let mut step = Step::default();
        match &schema.kind {
            Kind::Object(object) => {
                known.insert(schema.name.clone(), at);
                let inlined = object.inlines.iter().map(|inline| inline.schema.name.as_str());
                for name in std::iter::once(schema.name.as_str()).chain(inlined) {
                    step.functions.extend(defaults.functions.get(name).into_iter().flatten());
                }
                for field in &object.fields {
                    if let Some(inner) = container_of_objects(&field.schema) {
                        step.fields.push((field.name.clone(), self.add(defaults, inner, known)));
                    }
                }
            }
            Kind::Map(map) => step.each = Some(self.add(defaults, &map.values, known)),
            Kind::List(list) => step.each = Some(self.add(defaults, &list.items, known)),
            _ => {}
        }
        self.steps[at] = step;
        at
    }

    /// Marks the steps from which a function can be reached.
    fn mark(&mut self) {
        let mut changed = true;
        while changed {
            changed = false;
            for at in 0..self.steps.len() {
                let step = &self.steps[at];
                let useful = !step.functions.is_empty()
                    || step
                        .fields
                        .iter()
                        .map(|(_, next)| *next)
                        .chain(step.each)
                        .any(|n| self.steps[n].useful);
                if useful && !self.steps[at].useful {
                    self.steps[at].useful = true;
                    changed = true;
                }
            }
        }
    }

    fn run(&self, at: usize, value: &mut Value) {
        let step = &self.steps[at];
        match value {
            Value::Object(map) => {
                for function in &step.functions {
                    function(map);
                }
                for (name, next) in &step.fields {
                    if let Some(inner) = map.get_mut(name) {
                        self.run(*next, inner);
                    }
                }
                if let Some(next) = step.each {
                    map.values_mut().for_each(|inner| self.run(next, inner));
                }
            }
            Value::Array(items) => {
                if let Some(next) = step.each {
                    items.iter_mut().for_each(|item| self.run(next, item));
                }
            }
            _ => {}
        }
    }
}

fn container_of_objects(node: &Node) -> Option<&Schema> {
    match &node.kind {
        Kind::Object(_) => Some(node),
        Kind::Map(map) => container_of_objects(&map.values).map(|_| &**node),
        Kind::List(list) => container_of_objects(&list.items).map(|_| &**node),
        _ => None,
    }
}

/// Defaults that a custom resource's schema declares, parents first.
fn declared(value: &mut Value, schema: &Schema) {
    match (&schema.kind, value) {
        (Kind::Object(object), Value::Object(map)) => {
            for field in object.fields.iter().filter(|field| field.schema.has_defaults) {
                let inner = &field.schema;
                let refill = map.get(&field.name).is_none_or(|have| have.is_null() && !inner.nullable);
                if let Some(default) = inner.default.as_ref().filter(|_| refill) {
                    map.insert(field.name.clone(), default.clone());
                }
                if let Some(value) = map.get_mut(&field.name) {
                    declared(value, inner);
                }
            }
        }
        (Kind::Map(types), Value::Object(map)) if types.values.has_defaults => {
            map.values_mut().for_each(|value| declared_or_default(value, &types.values));
        }
        (Kind::List(list), Value::Array(items)) if list.items.has_defaults => {
            items.iter_mut().for_each(|value| declared_or_default(value, &list.items));
        }
        _ => {}
    }
}

fn declared_or_default(value: &mut Value, schema: &Schema) {
    if let Some(default) = schema.default.as_ref().filter(|_| value.is_null() && !schema.nullable) {
        *value = default.clone();
    }
    declared(value, schema);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table::builtin;

    fn set(map: &mut Map<String, Value>, key: &str, value: Value) {
        map.entry(key).or_insert(value);
    }

    fn defaults() -> TypeDefaults {
        TypeDefaults::new([
            ("core.v1.PodSpec", (|map| set(map, "dnsPolicy", json!("ClusterFirst"))) as DefaultFn),
            ("core.v1.Container", |map| set(map, "imagePullPolicy", json!("Always"))),
            ("core.v1.EmptyDirVolumeSource", |map| set(map, "medium", json!("m"))),
            ("core.v1.VolumeSource", |map| {
                if map.len() == 1 {
                    set(map, "emptyDir", json!({}));
                }
            }),
            ("apiextensions.v1.JSONSchemaProps", |map| set(map, "title", json!("t"))),
        ])
    }

    #[test]
    fn functions_hold_wherever_their_type_appears() {
        let spec = json!({"containers": [{"name": "a"}], "volumes": [{"name": "v"}]});
        let filled = json!({"dnsPolicy": "ClusterFirst", "containers": [{"name": "a", "imagePullPolicy": "Always"}],
            "volumes": [{"name": "v", "emptyDir": {"medium": "m"}}]});
        let types = defaults();
        let mut pod = json!({"spec": spec});
        default(&mut pod, &builtin("", "v1", "Pod").unwrap(), &types);
        assert_eq!(pod, json!({"spec": filled}));
        let mut set = json!({"spec": {"template": {"spec": spec}}});
        default(&mut set, &builtin("apps", "v1", "ReplicaSet").unwrap(), &types);
        assert_eq!(set, json!({"spec": {"template": {"spec": filled}}}));
    }

    #[test]
    fn types_that_contain_themselves_are_walked() {
        let mut crd =
            json!({"spec": {"versions": [{"schema": {"openAPIV3Schema": {"properties": {"a": {}}}}}]}});
        let schema = builtin("apiextensions.k8s.io", "v1", "CustomResourceDefinition").unwrap();
        default(&mut crd, &schema, &defaults());
        let inner = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        assert_eq!(*inner, json!({"title": "t", "properties": {"a": {"title": "t"}}}));
    }

    #[test]
    fn names_without_a_type_are_told() {
        let types = TypeDefaults::new([("core.v1.Potato", (|_| {}) as DefaultFn)]);
        assert_eq!(types.unknown_types().collect::<Vec<_>>(), ["core.v1.Potato"]);
        assert_eq!(defaults().unknown_types().count(), 0);
    }
}
