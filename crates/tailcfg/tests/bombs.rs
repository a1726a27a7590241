//! Small messages that want to become large: given up before they take the memory that they promise.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::io::Write;

use tailcfg::MapResponse;
use tailcfg::frame::{FrameError, INFLATED_LIMIT, inflate};
use tailcfg::json::{self, JsonError, Limits};

/// What this process may grow by: an inflated message at its limit, once more while it grows, and the decoder's window.
const GROWTH: usize = 3 * INFLATED_LIMIT;

/// The most memory that this process ever had, in bytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

/// Zeros, packed.
fn bomb(megabytes: usize) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    let piece = vec![0; 1 << 20];
    (0..megabytes).for_each(|_| encoder.write_all(&piece).unwrap());
    encoder.finish().unwrap()
}

/// One test: what each part takes is measured in the same process.
#[test]
fn bombs_are_given_up_in_bounded_memory() {
    let bombs = [bomb(2), bomb(80), bomb(512)];
    let lists = ["Peers", "PeersChanged", "PeersChangedPatch", "UserProfiles", "PacketFilter"];
    let wide: String = lists.iter().map(|list| format!("\"{list}\":[{}{{}}],", "{},".repeat(99_999))).collect();
    let wide = format!("{{{}\"Domain\":\"\"}}", wide);
    let wider = format!("{{\"Peers\":[{}{{}}]}}", "{},".repeat(100_000));
    let deep = format!("{{\"Peers\":{}", "[".repeat(INFLATED_LIMIT / 2));
    let before = peak();

    for bomb in &bombs {
        let size = bomb.len();
        assert!(size < 400 << 10, "{size} bytes promise very many");
        let refused = inflate(bomb).unwrap_err();
        match refused {
            FrameError::Ratio { .. } => {
                assert_eq!(refused.to_string(), format!("a map message of {size} bytes inflates more than 200-fold"));
            }
            FrameError::Inflated => {
                assert_eq!(refused.to_string(), "a map message inflates to more than 67108864 bytes");
            }
            other => panic!("{other}"),
        }
    }
    let refused = json::read::<MapResponse>(deep.as_bytes(), Limits::MAP).unwrap_err();
    assert!(matches!(refused, JsonError::TooDeep { .. }), "{refused}");
    let refused = json::read::<MapResponse>(wider.as_bytes(), Limits::MAP).unwrap_err();
    assert!(matches!(refused, JsonError::ManyEntries { .. }), "{refused}");
    let grown = peak() - before;
    assert!(grown < GROWTH, "what is refused took {} MiB", grown >> 20);

    // Within the limits, and still all structure: two bytes of text for a whole node.
    drop(json::read::<MapResponse>(wide.as_bytes(), Limits::MAP).unwrap());
    let grown = peak() - before;
    println!("{} KiB of JSON took {} MiB", wide.len() >> 10, grown >> 20);
    assert!(grown < 512 << 20, "what is within the limits took {} MiB", grown >> 20);
}
