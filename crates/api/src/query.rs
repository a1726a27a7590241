use crate::ApiError;

/// One parameter of a query, for the description of the API.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parameter {
    /// Its name.
    pub(crate) name: &'static str,
    /// Whether a request without it is refused.
    pub(crate) required: bool,
    /// The values that it can have; empty for any.
    pub(crate) values: &'static [&'static str],
}

/// What stands behind the `?` of a request.
pub(crate) trait Query: Sized + Send {
    /// The parameters that are known.
    const PARAMETERS: &'static [Parameter];

    /// Reads decoded pairs; unknown names are ignored.
    fn read(pairs: &[(String, String)]) -> Result<Self, ApiError>;

    /// Writes pairs that [`Query::read`] reads as the same.
    fn write(&self) -> Vec<(String, String)>;
}

/// The first value of a name.
pub(crate) fn value<'a>(pairs: &'a [(String, String)], wanted: &str) -> Option<&'a str> {
    pairs.iter().find_map(|(name, value)| (name == wanted).then_some(value.as_str()))
}

/// A truth value as Go's clients write it; absent is false.
pub(crate) fn flag(pairs: &[(String, String)], wanted: &str) -> Result<bool, ApiError> {
    match value(pairs, wanted) {
        None | Some("" | "0" | "false") => Ok(false),
        Some("1" | "true") => Ok(true),
        Some(_) => Err(ApiError::bad_request(format!("{wanted} is \"true\" or \"false\""))),
    }
}
