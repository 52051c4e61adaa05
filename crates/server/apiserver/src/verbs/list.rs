//! `list`: a concatenation of encoded objects.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use xebec_types::Status;

use crate::api::{Api, Call, cache_status};
use crate::body::Body;
use crate::cache::Entry;
use crate::catalog::Target;
use crate::codec::Encoded;
use crate::negotiate::{self, Shape};
use crate::pages::{Objects, Token};
use crate::query::{ListOptions, Match};
use crate::reply::{self, Reply};
use crate::table;

/// A page of a list.
pub struct Page {
    /// Its objects.
    pub items: Vec<Arc<Entry>>,
    /// The state it shows.
    pub revision: u64,
    /// Token of the next page; empty for the last one.
    pub next: String,
    /// How many objects follow, if that is known.
    pub remaining: Option<usize>,
}

impl Api {
    /// Answers a list.
    ///
    /// # Errors
    /// 400 and 422 for options, 406, 410 for an expired token.
    pub async fn list(&self, call: &Call, target: &Target) -> Reply {
        let wanted = negotiate::wanted(&call.headers, true)?;
        let options = ListOptions::parse(&call.query, target, &call.info.namespace, false)?;
        let page = match self.page(target, &options).await {
            Err(status) if status.code == 410 && !options.continue_token.is_empty() => {
                return Ok(expired_reply(&status, &options.continue_token));
            }
            page => page?,
        };
        let body = match wanted.shape {
            Shape::Table => table::list(target, &page, &call.query, call.now)?,
            Shape::Object => concatenate(target, &page),
            Shape::Metadata => table::metadata_list(&page),
        };
        Ok(reply::encoded(200, wanted.encoding, body))
    }

    /// The objects that options ask for.
    ///
    /// # Errors
    /// As [`Api::list`].
    pub async fn page(&self, target: &Target, options: &ListOptions) -> Result<Page, Status> {
        if !options.continue_token.is_empty() {
            return self.next_page(target, options);
        }
        self.reach(target, options).await?;
        let keep = |entry: &Entry| options.filter.matches(entry);
        // Taken before the scan: everything up to here is in it.
        let applied = self.cache.revision();
        let (items, newest) = match options.filter.fields.required("metadata.name") {
            Some(name) if !options.filter.namespace.is_empty() || !target.resource().namespaced() => {
                let entry = self.cached(target, &options.filter.namespace, name).ok();
                let entry = entry.filter(|entry| keep(entry));
                let newest = entry.as_ref().map_or(0, |entry| entry.revision);
                (entry.into_iter().collect(), newest)
            }
            _ => target.cache().scan_at(&options.filter.namespace, None, keep),
        };
        let revision = applied.max(newest);
        if options.limit == 0 || items.len() <= options.limit {
            return Ok(Page { items, revision, next: String::new(), remaining: None });
        }
        let objects: Objects = items.into();
        self.pages.keep(revision, &state_name(target, options), objects.clone());
        Ok(cut(target, options, &objects, revision, 0))
    }

    /// Waits for the state that the options need.
    async fn reach(&self, target: &Target, options: &ListOptions) -> Result<(), Status> {
        match (options.resource_version.as_str(), options.matching) {
            ("", _) => self.cache.wait_fresh().await.map_err(cache_status),
            ("0", _) => Ok(()),
            (_, Match::Exact) => self.reach_exactly(target, options).await,
            (_, Match::Unset | Match::NotOlderThan) => {
                self.cache.wait(options.revision).await.map_err(cache_status)
            }
        }
    }

    /// Only the present can be shown exactly: an older state can be when nothing has changed since.
    async fn reach_exactly(&self, target: &Target, options: &ListOptions) -> Result<(), Status> {
        self.cache.wait(options.revision).await.map_err(cache_status)?;
        match target.cache().next(options.revision, 1) {
            crate::cache::Next::Wait => Ok(()),
            _ => Err(Status::expired("The resourceVersion for the provided list is too old.")),
        }
    }

    fn next_page(&self, target: &Target, options: &ListOptions) -> Result<Page, Status> {
        if !matches!(options.resource_version.as_str(), "" | "0") {
            return Err(Status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let token = Token::decode(&options.continue_token)?;
        let key = format!("{}{}", target.cache().prefix(), token.start);
        if token.revision == 0 {
            let keep = |entry: &Entry| options.filter.matches(entry);
            let applied = self.cache.revision();
            let (items, newest) = target.cache().scan_at(&options.filter.namespace, Some(&key), keep);
            let (objects, revision) = (Objects::from(items), applied.max(newest));
            if options.limit > 0 && objects.len() > options.limit {
                self.pages.keep(revision, &state_name(target, options), objects.clone());
            }
            return Ok(cut(target, options, &objects, revision, 0));
        }
        let name = state_name(target, options);
        let Some(objects) = self.pages.get(token.revision, &name) else {
            return Err(Status::expired(EXPIRED_TOKEN));
        };
        let start = objects.partition_point(|entry| *entry.key <= *key);
        let page = cut(target, options, &objects, token.revision, start);
        if page.next.is_empty() {
            self.pages.finish(token.revision, &name);
        }
        Ok(page)
    }
}

/// Pages of different selections are different states.
fn state_name(target: &Target, options: &ListOptions) -> String {
    format!("{} {:?}", target.cache().prefix(), options.filter)
}

fn cut(target: &Target, options: &ListOptions, objects: &Objects, revision: u64, start: usize) -> Page {
    let rest = &objects[start.min(objects.len())..];
    let end = if options.limit == 0 { rest.len() } else { options.limit.min(rest.len()) };
    let items = rest[..end].to_vec();
    let left = rest.len() - end;
    let next = match items.last() {
        Some(last) if left > 0 => {
            Token::new(revision, last.key.strip_prefix(target.cache().prefix()).unwrap_or(&last.key)).encode()
        }
        _ => String::new(),
    };
    // Upstream counts only what no selector thins out.
    let remaining = (left > 0 && options.filter.selects_all()).then_some(left);
    Page { items, revision, next, remaining }
}

const EXPIRED_TOKEN: &str = "The provided continue parameter is too old to display a consistent list result. You can \
    start a new list without the continue parameter, or use the continue token in this response to retrieve the \
    remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were \
    created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// 410 with a token that goes on at the same place in whatever the state is then.
fn expired_reply(status: &Status, token: &str) -> Response<Body> {
    let mut json = status.to_json();
    if let Ok(token) = Token::decode(token) {
        json["metadata"]["continue"] = Token::new(0, &token.start).encode().into();
    }
    reply::value(status.code, &json)
}

/// `metadata` of a list, as JSON.
pub fn list_meta(page: &Page) -> String {
    let mut meta = format!("{{\"resourceVersion\":\"{}\"", page.revision);
    if !page.next.is_empty() {
        meta.push_str(&format!(",\"continue\":\"{}\"", page.next));
    }
    if let Some(remaining) = page.remaining {
        meta.push_str(&format!(",\"remainingItemCount\":{remaining}"));
    }
    meta.push('}');
    meta
}

/// The whole list: what is between the objects is a few bytes.
pub fn concatenate(target: &Target, page: &Page) -> Bytes {
    let api_version = target.api_version();
    let kind = target.kind();
    let size: usize = page.items.iter().map(|entry| entry.encoded.bytes.len() + 1).sum();
    let mut out = Vec::with_capacity(size + 256);
    let head = format!(
        "{{\"kind\":\"{}\",\"apiVersion\":\"{api_version}\",\"metadata\":{},\"items\":[",
        target.resource().names.list_kind,
        list_meta(page)
    );
    out.extend_from_slice(head.as_bytes());
    end_list(out, page, |out, encoded| out.extend_from_slice(&encoded.as_version(&api_version, kind)))
}

/// The items of a list whose beginning is written, each as `write` writes it, and the end.
pub fn end_list(mut out: Vec<u8>, page: &Page, write: impl Fn(&mut Vec<u8>, &Encoded)) -> Bytes {
    for (i, entry) in page.items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write(&mut out, &entry.encoded);
    }
    out.extend_from_slice(b"]}");
    out.into()
}
