//! Work on several things at once, with every failure told.

use std::thread;

use anyhow::{Error, Result};

/// Runs `work` for every item, each on a thread of its own, and waits for all of them.
///
/// # Errors
/// When any failed: all failures, one a paragraph.
pub(crate) fn for_each<T: Sync>(items: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    collect(items, work).map(drop)
}

/// As [`for_each`], with the results in the order of the items.
pub(crate) fn collect<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let work = &work;
    let results: Vec<Result<R>> = thread::scope(|scope| {
        let threads: Vec<_> = items.iter().map(|item| scope.spawn(move || work(item))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    together(results)
}

/// Runs two pieces of work at once.
///
/// # Errors
/// When one or both failed: all failures.
pub(crate) fn both<A: Send, B: Send>(
    one: impl FnOnce() -> Result<A> + Send,
    other: impl FnOnce() -> Result<B> + Send,
) -> Result<(A, B)> {
    let (one, other) = thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        (one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), other)
    });
    match (one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
        (Err(one), Err(other)) => Err(join(vec![one, other])),
    }
}

fn together<R>(results: Vec<Result<R>>) -> Result<Vec<R>> {
    let mut good = Vec::new();
    let mut bad = Vec::new();
    for result in results {
        match result {
            Ok(value) => good.push(value),
            Err(error) => bad.push(error),
        }
    }
    if bad.is_empty() { Ok(good) } else { Err(join(bad)) }
}

fn join(mut errors: Vec<Error>) -> Error {
    match errors.len() {
        1 => errors.remove(0),
        _ => Error::msg(errors.iter().map(|error| format!("{error:#}")).collect::<Vec<_>>().join("\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_is_told_and_not_only_the_first() {
        let error = for_each(&[1, 2, 3], |item| match item {
            2 => Ok(()),
            _ => anyhow::bail!("item {item} failed"),
        });
        assert_eq!(error.unwrap_err().to_string(), "item 1 failed\nitem 3 failed");
    }

    #[test]
    fn results_keep_the_order_of_the_items() {
        assert_eq!(collect(&[3, 1, 2], |item| Ok(item * 10)).unwrap(), [30, 10, 20]);
    }
}
