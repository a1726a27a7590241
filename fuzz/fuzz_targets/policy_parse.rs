//! Any text: it is read or refused, and what is read stays the same through the one form that all tools agree on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use policy::Policy;
use policy::hujson::{Document, format};

fuzz_target!(|text: &str| {
    if let Ok(document) = Document::parse(text) {
        let formatted = format(&document);
        let again = Document::parse(&formatted).expect("what is formatted is HuJSON");
        assert_eq!(format(&again), formatted, "formatting twice changes nothing more");
        let plain = document.minify(document.root());
        assert_eq!(again.minify(again.root()), plain, "formatting changes no value");
        serde_json::from_str::<serde_json::Value>(&plain).expect("without comments it is JSON");
    }
    match Policy::parse(text) {
        Ok(policy) => {
            let again = Policy::parse(&policy.formatted()).expect("what is formatted is a policy");
            assert_eq!(again.rules().len(), policy.rules().len());
        }
        Err(error) => assert!(!error.to_string().is_empty(), "a refusal says why"),
    }
});
