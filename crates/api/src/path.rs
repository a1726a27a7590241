use crate::{ApiError, urlencoded};

/// The variable parts of an operation's path.
pub trait PathParameters: Sized + Send {
    /// Their names, in the order in which they stand in the path.
    const NAMES: &'static [&'static str];

    /// Reads them from decoded values, in the same order.
    fn read(values: Vec<String>) -> Result<Self, ApiError>;

    /// Their values, in the same order.
    fn values(&self) -> Vec<&str>;
}

/// Puts values into a path's `{…}`, one after the other.
pub(crate) fn fill(template: &str, values: &[&str]) -> String {
    let mut path = String::new();
    let mut values = values.iter();
    for (at, piece) in template.split('/').enumerate() {
        if at > 0 {
            path.push('/');
        }
        match piece.starts_with('{').then(|| values.next()).flatten() {
            Some(value) => path.push_str(&urlencoded::encode(value)),
            None => path.push_str(piece),
        }
    }
    path
}

macro_rules! path_parameters {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $wire:literal),+ })*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, PartialEq, Eq)]
            pub struct $name {
                $($(#[$field_doc])* pub $field: String),+
            }

            impl PathParameters for $name {
                const NAMES: &'static [&'static str] = &[$($wire),+];

                fn read(values: Vec<String>) -> Result<Self, ApiError> {
                    let mut values = values.into_iter();
                    $(let $field = values.next().filter(|value| !value.is_empty()).ok_or_else(|| {
                        ApiError::not_found(concat!("the path lacks its ", $wire))
                    })?;)+
                    Ok(Self { $($field),+ })
                }

                fn values(&self) -> Vec<&str> {
                    vec![$(self.$field.as_str()),+]
                }
            }
        )*
    };
}

path_parameters! {
    /// A tailnet.
    InTailnet {
        /// `-` for the caller's own, or its name.
        tailnet: "tailnet"
    }

    /// A device.
    OfDevice {
        /// Its stable id, or its number.
        device: "deviceId"
    }

    /// A key of a tailnet.
    OfKey {
        /// `-` for the caller's own, or its name.
        tailnet: "tailnet",
        /// The key's id.
        key: "keyId"
    }

    /// A user.
    OfUser {
        /// The user's id.
        user: "userId"
    }

    /// A virtual service of a tailnet.
    OfService {
        /// `-` for the caller's own, or its name.
        tailnet: "tailnet",
        /// `svc:` and its name.
        service: "serviceName"
    }
}

impl InTailnet {
    /// The caller's own tailnet.
    pub fn own() -> Self {
        Self { tailnet: "-".to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_filled_in_order_and_encoded() {
        let at = OfService { tailnet: "-".to_owned(), service: "svc:a/b".to_owned() };
        let path = fill("/tailnet/{tailnet}/services/{serviceName}/devices", &at.values());
        assert_eq!(path, "/tailnet/-/services/svc%3Aa%2Fb/devices");
    }

    #[test]
    fn an_empty_part_is_refused() {
        assert!(OfDevice::read(vec![String::new()]).is_err());
    }
}
