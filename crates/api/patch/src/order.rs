//! The order of items after a merge.

use serde_json::Value;

/// What makes two items of a list the same: the value itself, or the value of its merge key.
pub(crate) fn identity<'v>(item: &'v Value, key: Option<&str>) -> &'v Value {
    key.and_then(|key| item.get(key)).unwrap_or(item)
}

/// Orders `merged`: items named in `wanted` keep its order, the others that of `before`, and both are
/// interleaved so that an item the patch does not know stays in front of those it stood in front of.
pub(crate) fn arrange(
    merged: Vec<Value>,
    wanted: &[Value],
    before: &[Value],
    key: Option<&str>,
) -> Vec<Value> {
    let place = |list: &[Value], item: &Value| {
        list.iter().position(|have| identity(have, key) == identity(item, key))
    };
    let (mut known, mut others): (Vec<_>, Vec<_>) =
        merged.into_iter().partition(|item| place(wanted, item).is_some());
    known.sort_by_key(|item| place(wanted, item));
    // Items that were nowhere before stay behind those that were.
    others.sort_by_key(|item| place(before, item).unwrap_or(usize::MAX));

    let mut arranged = Vec::with_capacity(known.len() + others.len());
    let mut known = known.into_iter().peekable();
    for other in others {
        let other_place = place(before, &other);
        while let Some(next) = known.peek() {
            let in_front = other_place.zip(place(before, next)).is_some_and(|(other, next)| other < next);
            if in_front {
                break;
            }
            arranged.extend(known.next());
        }
        arranged.push(other);
    }
    arranged.extend(known);
    arranged
}

/// Whether the items of `list` that occur in `wanted` occur there in the same order, and none is missing.
pub(crate) fn follows(list: &[Value], wanted: &[Value], key: Option<&str>) -> bool {
    let mut from = 0;
    list.iter().all(|item| {
        let at = wanted[from..].iter().position(|have| identity(have, key) == identity(item, key));
        at.inspect(|at| from += at + 1).is_some()
    })
}
