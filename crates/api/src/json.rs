//! JSON as clients in Go write it.

use serde::{Deserialize, Deserializer};

/// Reads `null` as the default: Go writes it for empty lists and maps.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
