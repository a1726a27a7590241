//! How many bytes the proxy holds at most, and where.

use crate::Limits;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// What a client may send over HTTP/2 before the API server has taken it, by request and by connection: the least that the
/// protocol knows (RFC 9113, section 6.9.2). What is large goes by sessions, which have no such window.
pub(crate) const CLIENT_WINDOW: u32 = 64 << 10;

/// How much of an answer waits for its client in the connection over HTTP/2, and how much of a request for the API server.
pub(crate) const SEND_BUFFER: usize = 32 * KIB;

/// How much of one answer the API server may send before the client has taken it.
pub(crate) const ANSWER_WINDOW: u32 = 32 << 10;

/// How much of all answers to one caller: what is left for the others when 63 are not read.
///
/// It also bounds what small frames cost beyond their bytes: `h2` ends a connection that holds more of them than half its
/// window pays for, at up to 256 bytes a frame.
pub(crate) const ANSWERS_WINDOW: u32 = 2 << 20;

/// How much one direction of a session holds between its two connections.
pub(crate) const SESSION_BUFFER: usize = 32 * KIB;

/// What the kernel may hold in each direction of a connection to the API server. It doubles what it is asked for (socket(7));
/// without asking it goes up to 6 MiB. The API server is near: 64 KiB a millisecond are more than a tailnet carries.
pub(crate) const SOCKET_BUFFER: u32 = 64 << 10;

/// The longest frame over HTTP/2, which is the longest piece of a body (RFC 9113, section 4.2).
const FRAME: usize = 16 * KIB;

/// What `rustls` holds of a connection: records to send, one that comes in, and what it holds in the clear.
const TLS: usize = (64 + 18 + 16 + 30) * KIB;

/// One frame in, one out, the tables of HPACK, a head that is not whole yet.
const CODEC: usize = 64 * KIB;

/// A request that was refused and whose answer is not taken yet: the stream, and a message.
const REFUSED: usize = 2 * KIB;

/// The tasks of a request and what they know.
const TASKS: usize = 32 * KIB;

/// Connections in the node's IP stack: those of [`Limits::connections`], and half as many that begin or say goodbye.
pub(crate) const STACK_CONNECTIONS: usize = 384;

/// How many of them one address may have begun, those included to which the proxy has said goodbye and the client has not,
/// which make room for new ones. A device has two addresses, and with both no more than a third.
pub(crate) const STACK_CONNECTIONS_PER_ADDRESS: usize = STACK_CONNECTIONS / 6;

/// What the windows of that stack share: a lone connection has 2 MiB in each direction, the 32nd and all after it 64 KiB.
pub(crate) const STACK_WINDOWS: usize = 32 * MIB;

/// Of the windows that are shared no more than the half is ever given (the first 31 get 4 MiB, 2 MiB, 1.3 MiB and so on),
/// and each connection has 128 KiB anyway.
const STACK: usize = STACK_WINDOWS / 2 + STACK_CONNECTIONS * 128 * KIB;

/// The program, the network map, packets between threads.
const PROCESS: usize = 64 * MIB;

impl Limits {
    /// The most bytes that the proxy with its node holds when all clients do their worst at once.
    ///
    /// | of each | holds | by default |
    /// |---|---|---|
    /// | connection | TLS, frames, a window twice (small frames), a refused answer a stream | 256 × 520 KiB = 130 MiB |
    /// | request | both send buffers with a frame more each, its window, heads in three places, tasks | 768 × 256 KiB = 192 MiB |
    /// | session | both directions | 128 × 64 KiB = 8 MiB |
    /// | caller | what small frames cost | 128 × 1 MiB = 128 MiB |
    /// | connection to the API server | TLS, frames, what the kernel holds in both directions | 256 × 448 KiB = 112 MiB |
    /// | process | IP stack, network map, program | 128 MiB |
    ///
    /// That is 698 MiB; the chart's limit lies above it. A proxy with a dozen kubectl needs less than a tenth.
    pub const fn memory(&self) -> usize {
        let refused = self.streams_per_connection as usize * REFUSED;
        let connection = TLS + CODEC + 2 * CLIENT_WINDOW as usize + refused;
        let heads = 2 * self.header_bytes as usize + FRAME;
        let request = 2 * (SEND_BUFFER + FRAME) + ANSWER_WINDOW as usize + heads + TASKS + FRAME;
        let upstream = TLS + CODEC + 4 * SOCKET_BUFFER as usize;
        self.connections * connection
            + self.requests * request
            + self.sessions * 2 * SESSION_BUFFER
            + self.callers * ANSWERS_WINDOW as usize / 2
            + self.upstream_connections * upstream
            + STACK
            + PROCESS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_case_is_below_the_memory_limit_of_the_chart() {
        let values = include_str!("../../../deploy/chart/values.yaml");
        let (_, own) = values.split_once("\napiServerProxy:").unwrap();
        let (_, limit) = own.split_once("limits: {memory: ").unwrap();
        let (mebibytes, _) = limit.split_once("Mi}").unwrap();
        let limit = mebibytes.parse::<usize>().unwrap() * MIB;
        let worst = Limits::default().memory();
        assert!(worst < limit, "{} MiB", worst / MIB);
    }

    #[test]
    fn the_worst_case_is_told_as_it_is() {
        let worst = Limits::default().memory() / MIB;
        let told = [
            (
                "memory.rs",
                include_str!("memory.rs"),
                format!("/// That is {worst} MiB; the chart's limit lies above it"),
            ),
            (
                "values.yaml",
                include_str!("../../../deploy/chart/values.yaml"),
                format!("do their worst at once ({worst} MiB)"),
            ),
            (
                "api-server.md",
                include_str!("../../../docs/guide/api-server.md"),
                format!("do their worst at once it holds {worst} MiB"),
            ),
        ];
        for (file, text, words) in told {
            assert!(text.contains(&words), "{file} does not say {words:?}");
        }
    }

    #[test]
    fn the_stack_has_more_places_than_the_proxy() {
        assert!(STACK_CONNECTIONS > Limits::default().connections);
        // Those of one device, with both of its addresses, are all that the proxy lets it have and leave room to others.
        assert!(STACK_CONNECTIONS_PER_ADDRESS > Limits::default().connections_per_device);
        const { assert!(2 * 2 * STACK_CONNECTIONS_PER_ADDRESS < STACK_CONNECTIONS, "two devices leave room to a third") };
    }
}
