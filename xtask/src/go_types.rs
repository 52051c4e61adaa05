//! Reads upstream's Go structs and resolves their types to the table's type expressions.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// One field of a Go struct as `go-fields.json` tells it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GoField {
    /// Name in JSON; empty for inlined structs.
    pub json: String,
    /// Go type as written in the source.
    pub go: String,
    /// Whether zero values are left out.
    #[serde(default)]
    pub omitempty: bool,
    /// Whether zero structs are left out.
    #[serde(default)]
    pub omitzero: bool,
    /// Whether the struct's fields appear in its parent.
    #[serde(default)]
    pub inline: bool,
    /// The protobuf tag.
    #[serde(default)]
    pub proto: Option<String>,
    /// Strategic merge patch strategies, separated by commas.
    #[serde(default)]
    pub patch_strategy: Option<String>,
    /// Strategic merge patch key.
    #[serde(default)]
    pub patch_merge_key: Option<String>,
}

/// All structs and named types, by `import/path.Name`.
#[derive(Debug, Deserialize)]
pub struct GoTypes {
    /// Underlying type of each named type that is not a struct.
    pub named: BTreeMap<String, String>,
    /// Fields of each struct.
    pub structs: BTreeMap<String, Vec<GoField>>,
}

/// Types whose JSON form differs from their Go fields, and the letter the table gives them.
const SPECIAL: &[(&str, &str)] = &[
    ("k8s.io/apimachinery/pkg/api/resource.Quantity", "q"),
    ("k8s.io/apimachinery/pkg/util/intstr.IntOrString", "I"),
    ("k8s.io/apimachinery/pkg/apis/meta/v1.Time", "t"),
    ("k8s.io/apimachinery/pkg/apis/meta/v1.MicroTime", "u"),
    ("k8s.io/apimachinery/pkg/apis/meta/v1.Duration", "D"),
    ("k8s.io/apimachinery/pkg/apis/meta/v1.FieldsV1", "f"),
    ("k8s.io/apimachinery/pkg/runtime.RawExtension", "r"),
    ("k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSON", "j"),
    ("k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrArray", "A"),
    ("k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrBool", "O"),
    ("k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrStringArray", "S"),
];

/// Structs without fields, which the reference data leaves out.
const EMPTY: &[&str] = &[
    "k8s.io/api/apiserverinternal/v1alpha1.StorageVersionSpec",
    "k8s.io/api/scheduling/v1alpha2.BasicSchedulingPolicy",
    "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.CustomResourceSubresourceStatus",
];

/// Named slices that are messages of their own in protobuf.
const WRAPPED: &[&str] = &["ExtraValue", "Verbs"];

impl GoTypes {
    /// Reads `go-fields.json` of the reference folder.
    pub fn read(reference: &Path) -> Result<Self> {
        let file = reference.join("go-fields.json");
        let text = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let mut types: Self =
            serde_json::from_slice(&text).with_context(|| format!("cannot parse {}", file.display()))?;
        types.structs.extend(EMPTY.iter().map(|name| ((*name).to_owned(), Vec::new())));
        Ok(types)
    }

    /// The table's expression for Go type `go` as written in package `package`.
    pub fn expression(&self, package: &str, go: &str) -> Result<String> {
        if let Some(inner) = go.strip_prefix('*') {
            return Ok(format!("*{}", self.expression(package, inner)?));
        }
        if go == "[]byte" {
            return Ok("B".to_owned());
        }
        if let Some(inner) = go.strip_prefix("[]") {
            return Ok(format!("[{}", self.expression(package, inner)?));
        }
        if let Some(rest) = go.strip_prefix("map[") {
            let (_, value) = rest.split_once(']').context("map type without a value")?;
            return Ok(format!("{{{}", self.expression(package, value)?));
        }
        let basic = match go {
            "string" => "s",
            "bool" => "b",
            "int32" => "i",
            "int64" | "int" => "l",
            "float64" => "d",
            "interface{}" => "j",
            _ => return self.named_expression(package, go),
        };
        Ok(basic.to_owned())
    }

    /// The full name of struct `go` as written in package `package`.
    pub fn resolve(&self, package: &str, go: &str) -> Result<String> {
        let Some((alias, name)) = go.split_once('.') else {
            return Ok(format!("{package}.{go}"));
        };
        let core = "k8s.io/api/core/v1";
        let meta = "k8s.io/apimachinery/pkg/apis/meta/v1";
        let group = package.rsplit_once('/').map_or(package, |(group, _)| group);
        let own = format!("{group}/v1");
        let candidates: Vec<&str> = match alias {
            "metav1" => vec![meta],
            "v1" if own == package => vec![core, meta],
            "v1" => vec![&own, core, meta],
            "corev1" | "apiv1" => vec![core],
            "authenticationv1" => vec!["k8s.io/api/authentication/v1"],
            "authorizationv1" => vec!["k8s.io/api/authorization/v1"],
            "batchv1" => vec!["k8s.io/api/batch/v1"],
            "resource" => vec!["k8s.io/apimachinery/pkg/api/resource"],
            "intstr" => vec!["k8s.io/apimachinery/pkg/util/intstr"],
            "runtime" => vec!["k8s.io/apimachinery/pkg/runtime"],
            _ => bail!("{package}: unknown import {alias} in {go}"),
        };
        for candidate in candidates {
            let full = format!("{candidate}.{name}");
            let special = SPECIAL.iter().any(|(name, _)| *name == full);
            if special || self.structs.contains_key(&full) || self.named.contains_key(&full) {
                return Ok(full);
            }
        }
        bail!("{package}: {go} names no known type")
    }

    fn named_expression(&self, package: &str, go: &str) -> Result<String> {
        if go.starts_with("types.") {
            return Ok(format!("s<{go}>"));
        }
        let full = self.resolve(package, go)?;
        if self.named.get(&full).is_some_and(|underlying| underlying.starts_with("v1.")) {
            // An alias for another version's type takes its name, too.
            let (home, _) = full.rsplit_once('.').context("type without a package")?;
            let target = self.resolve(home, &self.named[&full])?;
            let (home, name) = target.rsplit_once('.').context("type without a package")?;
            return self.local_expression(package, home, name, &target);
        }
        if let Some((_, letter)) = SPECIAL.iter().find(|(name, _)| *name == full) {
            return Ok((*letter).to_owned());
        }
        let (home, name) = full.rsplit_once('.').context("type without a package")?;
        self.local_expression(package, home, name, &full)
    }

    /// The expression for type `name` of package `home`, seen from `package`.
    fn local_expression(&self, package: &str, home: &str, name: &str, full: &str) -> Result<String> {
        if self.structs.contains_key(full) {
            let own = if home == package { ".".to_owned() } else { format!("{}.", short_package(home)?) };
            return Ok(format!("@{own}{name}"));
        }
        let underlying = self.named.get(full).with_context(|| format!("unknown type {full}"))?;
        let expression = self.expression(home, underlying)?;
        let expression = if home == package {
            expression
        } else {
            expression.replace("@.", &format!("@{}.", short_package(home)?))
        };
        if WRAPPED.contains(&name) {
            return Ok(format!("W{expression}"));
        }
        Ok(match expression.as_str() {
            "s" => format!("s<{}.{name}>", home.rsplit('/').next().unwrap_or(home)),
            _ => expression,
        })
    }
}

/// The short form of a package: `k8s.io/api/core/v1` is `core.v1`.
pub fn short_package(package: &str) -> Result<String> {
    if package == "k8s.io/apimachinery/pkg/runtime" {
        return Ok("runtime".to_owned());
    }
    let mut parts = package.rsplit('/');
    let (version, group) = (parts.next().context("empty package")?, parts.next().context("no group")?);
    Ok(format!("{group}.{version}"))
}
