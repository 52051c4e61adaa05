//! Objects in files: YAML documents, JSON, and Lists of them.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use tokio::io::AsyncReadExt;

use crate::discovery::text;
use crate::error::{Error, Result};
use crate::session::Session;
use crate::targets::Found;

/// More than any sane manifest; a bound against reading a disk image.
const LIMIT: u64 = 64 << 20;

/// One object of a file.
#[derive(Clone, Debug)]
pub struct Document {
    /// The file as the user named it; `STDIN` for standard input.
    pub source: String,
    /// The object.
    pub object: Value,
}

impl Document {
    /// Which resource it is an instance of, and where it belongs. The returned object is the one of the file,
    /// with its namespace filled in.
    pub async fn locate(&self, session: &Session) -> Result<Found> {
        let (api_version, kind) = (text(&self.object["apiVersion"]), text(&self.object["kind"]));
        if api_version.is_empty() || kind.is_empty() {
            let missing = if kind.is_empty() { "kind not set" } else { "apiVersion not set" };
            return Err(Error::client(format!("error validating {:?}: {missing}", self.source)));
        }
        let discovery = session.discovery().await?;
        let resource = discovery.for_kind(&api_version, &kind).ok_or_else(|| {
            Error::client(format!(
                "resource mapping not found for name: {:?} namespace: {:?} from {:?}: no matches for kind {kind:?} \
                 in version {api_version:?}\nensure CRDs are installed first",
                text(&self.object["metadata"]["name"]),
                text(&self.object["metadata"]["namespace"]),
                self.source
            ))
        })?;
        let mut object = self.object.clone();
        let mut namespace = None;
        if resource.namespaced {
            let own = text(&object["metadata"]["namespace"]);
            if session.namespace_given && !own.is_empty() && own != session.namespace {
                return Err(Error::client(format!(
                    "the namespace from the provided object {own:?} does not match the namespace {:?}. You must \
                     pass '--namespace={own}' to perform this operation.",
                    session.namespace
                )));
            }
            let place = if own.is_empty() { session.namespace.clone() } else { own };
            object["metadata"]["namespace"] = place.clone().into();
            namespace = Some(place);
        }
        let name = text(&object["metadata"]["name"]);
        Ok(Found { resource, namespace, name, object, source: Some(self.source.clone()) })
    }
}

/// Reads files, directories (their `.yaml`, `.yml` and `.json` files) and `-`.
pub async fn read(session: &Session, names: &[PathBuf], recursive: bool) -> Result<Vec<Document>> {
    if names.is_empty() {
        return Err(Error::client("must specify one of -f and -k"));
    }
    let mut documents = Vec::new();
    for name in names {
        let shown = name.to_string_lossy();
        if shown.starts_with("http://") || shown.starts_with("https://") {
            return Err(Error::client(format!(
                "{shown}: URLs are not supported: download it and use -f FILE"
            )));
        }
        if shown == "-" {
            let mut bytes = Vec::new();
            session.stdin()?.take(LIMIT).read_to_end(&mut bytes).await?;
            documents.extend(parse("STDIN", &String::from_utf8_lossy(&bytes))?);
            continue;
        }
        if !name.exists() {
            return Err(Error::client(format!("the path {shown:?} does not exist")));
        }
        let mut files = Vec::new();
        collect(name, recursive, true, &mut files)?;
        for file in files {
            let size = std::fs::metadata(&file).map_err(|source| at(&file, source))?.len();
            if size > LIMIT {
                return Err(Error::client(format!("{}: larger than {} MiB", file.display(), LIMIT >> 20)));
            }
            let content = std::fs::read_to_string(&file).map_err(|source| at(&file, source))?;
            documents.extend(parse(&file.to_string_lossy(), &content)?);
        }
    }
    if documents.is_empty() {
        return Err(Error::client("no objects found in the given files"));
    }
    Ok(documents)
}

fn at(path: &Path, source: std::io::Error) -> Error {
    Error::File { path: path.to_owned(), source }
}

fn collect(path: &Path, recursive: bool, top: bool, files: &mut Vec<PathBuf>) -> Result<()> {
    if !path.is_dir() {
        let known = path.extension().is_some_and(|e| ["yaml", "yml", "json"].iter().any(|known| e == *known));
        if top || known {
            files.push(path.to_owned());
        }
        return Ok(());
    }
    if !top && !recursive {
        return Ok(());
    }
    let entries = std::fs::read_dir(path).map_err(|source| at(path, source))?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(|source| at(path, source))?.path());
    }
    paths.sort();
    paths.iter().try_for_each(|below| collect(below, recursive, false, files))
}

/// Splits a file into objects; `List`s are taken apart.
pub fn parse(source: &str, content: &str) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    for part in serde_yaml_ng::Deserializer::from_str(content) {
        let object = Value::deserialize(part).map_err(|e| {
            Error::client(format!("error parsing {source}: error converting YAML to JSON: {e}"))
        })?;
        take(source, object, &mut documents)?;
    }
    Ok(documents)
}

fn take(source: &str, mut object: Value, documents: &mut Vec<Document>) -> Result<()> {
    if object.is_null() {
        return Ok(());
    }
    if !object.is_object() {
        return Err(Error::client(format!("error parsing {source}: a document is not an object")));
    }
    if object["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) && object["items"].is_array() {
        for item in object["items"].as_array_mut().into_iter().flatten() {
            take(source, item.take(), documents)?;
        }
        return Ok(());
    }
    resolve(&mut object);
    documents.push(Document { source: source.to_owned(), object });
    Ok(())
}

/// Reads YAML 1.1 octals (`defaultMode: 0400`) in kinds whose schema is known here: not in custom resources.
fn resolve(object: &mut Value) {
    let (api_version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    if let Some(schema) = xebec_schema::builtin(group, version, &kind) {
        xebec_schema::resolve_octals(object, &schema);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn documents_and_lists_are_taken_apart() {
        let text =
            "a: 1\n---\n# nothing\n---\nkind: List\nitems:\n- kind: A\n- kind: BList\n  items: [{kind: B}]\n";
        let kinds: Vec<Value> =
            parse("f", text).unwrap().into_iter().map(|d| d.object["kind"].clone()).collect();
        assert_eq!(kinds, [Value::Null, "A".into(), "B".into()]);
        assert_eq!(parse("f", "{\"kind\": \"Pod\"}").unwrap().len(), 1);
        assert!(parse("f", "- 1\n").is_err());
    }

    #[test]
    fn octals_are_numbers_where_the_kind_is_known() {
        let spec = "{template: {spec: {volumes: [{secret: {secretName: 0555, defaultMode: 0400}}]}}}";
        let text = format!(
            "kind: List\nitems:\n- {{apiVersion: apps/v1, kind: Deployment, spec: {spec}}}\n\
             ---\napiVersion: example.com/v1\nkind: Boat\nspec: {{mode: 0400}}\n\
             ---\napiVersion: v1\nkind: Pod\nspec: {{terminationGracePeriodSeconds: 010}}\n"
        );
        let read = parse("f", &text).unwrap();
        let secret = &read[0].object["spec"]["template"]["spec"]["volumes"][0]["secret"];
        assert_eq!(*secret, serde_json::json!({"secretName": "0555", "defaultMode": 256}));
        assert_eq!(read[1].object["spec"]["mode"], "0400");
        assert_eq!(read[2].object["spec"]["terminationGracePeriodSeconds"], 8);
    }
}
