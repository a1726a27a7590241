//! Whatever a client sends arrives with exactly one identity, the one that its grant gives, or not at all.
//!
//! Requests are generated in bytes, over both versions of HTTP, and the API server behind the proxy speaks both as well.

mod grant;
mod outcome;
mod request;
mod wire;

use std::time::Duration;

use apiproxy::Limits;
use proptest::prelude::*;

use crate::world::{PATIENCE, World};
use grant::identity;
use outcome::{Seen, Tally, over_http1, over_http2};
use request::{Hostile, hostile, http1, http2};
use wire::{http1_bytes, http2_bytes};

/// With fewer requests than this not all kinds of outcomes are seen.
const CASES_FOR_ALL: u32 = 200;

/// How long to wait for an answer to a request that may be without its end.
const BRIEFLY: Duration = Duration::from_millis(500);

/// Sends generated requests, each over a connection of its own, to a proxy whose API server speaks these protocols.
fn run<H: Strategy>(upstream: &[&str], how: H, ask: impl AsyncFn(&World, &Hostile, &H::Value) -> Seen) -> Tally {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let world = runtime.block_on(World::build(Limits::default(), upstream));
    // What fails is kept beside these tests and tried first the next time; `PROPTEST_CASES` says how many are.
    let config = ProptestConfig { source_file: Some(file!()), ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let tally = std::cell::RefCell::new(Tally::default());
    let checked = runner.run(&(identity(), hostile(), how), |(identity, hostile, how)| {
        world.server.forget();
        world.everybody.become_now(identity.clone());
        let patience = if hostile.has_framing_of_its_own() { BRIEFLY } else { PATIENCE };
        let seen = runtime.block_on(async { tokio::time::timeout(patience, ask(&world, &hostile, &how)).await });
        let seen = seen.unwrap_or(Seen::Waiting);
        tally.borrow_mut().check(identity.as_ref(), &hostile, seen, &world.server.arrived())
    });
    checked.unwrap();
    runtime.block_on(world.stop());
    tally.into_inner()
}

/// Whether so many were sent that a proxy which refuses everything would be noticed.
fn shows_all() -> bool {
    ProptestConfig::default().cases >= CASES_FOR_ALL
}

fn from_http1(upstream: &[&str]) {
    let tally =
        run(upstream, http1(), async |world, hostile, http1| over_http1(world, &http1_bytes(hostile, http1)).await);
    let varied = tally.answered > 10 && tally.bodies > 5 && tally.sessions > 2 && tally.refused > 10;
    assert!(varied || !shows_all(), "{tally:?}");
}

fn from_http2(upstream: &[&str]) {
    let tally =
        run(upstream, http2(), async |world, hostile, http2| over_http2(world, &http2_bytes(hostile, http2)).await);
    let varied = tally.answered > 10 && tally.bodies > 5 && tally.refused > 10;
    assert!(varied || !shows_all(), "{tally:?}");
}

#[test]
fn generated_requests_over_http1_arrive_with_one_identity_or_not_at_all() {
    from_http1(&["h2", "http/1.1"]);
}

#[test]
fn generated_requests_over_http2_arrive_with_one_identity_or_not_at_all() {
    from_http2(&["h2", "http/1.1"]);
}

#[test]
fn generated_requests_over_http1_to_an_api_server_without_http2_arrive_with_one_identity_or_not_at_all() {
    from_http1(&["http/1.1"]);
}

#[test]
fn generated_requests_over_http2_to_an_api_server_without_http2_arrive_with_one_identity_or_not_at_all() {
    from_http2(&["http/1.1"]);
}
