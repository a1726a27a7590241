//! Bad input, as strangers, devices, people and programs send it to a whole server: each is refused with a message that
//! says what is wrong and what to do, and changes nothing.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

mod checks;
mod explanations;
mod floods;
mod machine;
mod pings;
mod policies;
mod previews;
mod records;
mod registrations;
mod relays;
mod rights;
mod server;
mod setting_up;
mod storage;
mod tailnets;
mod trust;
