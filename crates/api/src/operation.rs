//! What an operation is, and the macro that makes trait, routes, client and description from one table of them.

use http::Method;
use schemars::SchemaGenerator;
use serde_json::Value;

use crate::Scope;
use crate::exchange::PayloadDescription;
use crate::query::Parameter;

/// One operation of the API, as the table has it.
#[derive(Debug)]
pub(crate) struct Operation {
    /// The official name, `listTailnetDevices`.
    pub(crate) id: &'static str,
    /// The method.
    pub(crate) method: Method,
    /// The paths below `/api/v2`; the first is the official one, others are still called by older clients.
    pub(crate) paths: &'static [&'static str],
    /// Any one of these scopes is enough; empty where the operation is not served yet.
    pub(crate) any_of: &'static [Scope],
    /// Whether callers without any of these may ask about what is their own.
    pub(crate) or_own: bool,
    /// What it does, in a sentence.
    pub(crate) summary: &'static str,
    /// The group that it belongs to.
    pub(crate) section: &'static str,
    /// Describes what goes in and out; `None` where the operation is not served yet.
    pub(crate) describe: Option<fn(&mut SchemaGenerator) -> Description>,
}

/// What goes in and out of an operation.
pub(crate) struct Description {
    pub(crate) path: &'static [&'static str],
    pub(crate) query: Vec<Parameter>,
    pub(crate) payload: Option<PayloadDescription>,
    pub(crate) reply: Value,
}

macro_rules! operations {
    ($(
        $(#[doc = $doc:literal])+
        $section:literal $id:literal $name:ident: $method:ident $path:literal $(or $alias:literal)*,
            by $permission:ty, at $at:ident $(, query $query:ty)? $(, payload $payload:ty)? => $reply:ty;
    )*) => {
        /// The REST API v2 as a server has it: one method per operation.
        ///
        /// Each takes the proof that its caller may do it; [`crate::router`] finds it out before it calls.
        pub trait Api: Send + Sync + 'static {
            /// Who a caller is, in the server's own terms.
            type Identity: Clone + Send + Sync + 'static;

            /// A place for a body larger than [`BODY_LIMIT`], from then on until the request is answered.
            type LargeBody: Send + 'static;

            /// Gives somebody a place for a large body, of which a server has room for a few only.
            ///
            /// # Errors
            /// There is none left.
            fn admit_large(&self, who: &Self::Identity) -> Result<Self::LargeBody, ApiError>;

            /// Finds out whose credential this is and what it may do.
            fn authenticate(
                &self,
                credential: Credential,
                peer: Peer,
            ) -> impl Future<Output = Result<Caller<Self::Identity>, ApiError>> + Send;

            /// Gives an access token for a client's secret or a user's password.
            fn issue_token(
                &self,
                request: TokenRequest,
                peer: Peer,
            ) -> impl Future<Output = Result<AccessToken, ApiError>> + Send;

            $(
                $(#[doc = $doc])+
                fn $name(
                    &self,
                    by: Authorized<$permission, Self::Identity>,
                    at: $at,
                    $(query: $query,)?
                    $(payload: $payload,)?
                ) -> impl Future<Output = Result<$reply, ApiError>> + Send;
            )*
        }

        /// The operations that are served, in the order of the official documentation.
        pub(crate) static SERVED: &[Operation] = &[$(
            Operation {
                id: $id,
                method: Method::$method,
                paths: &[$path $(, $alias)*],
                any_of: <$permission as Permission>::ANY_OF,
                or_own: <$permission as Permission>::OR_OWN,
                summary: concat!($($doc),+),
                section: $section,
                describe: Some(|schemas| Description {
                    path: <$at as PathParameters>::NAMES,
                    query: [$(<$query as Query>::PARAMETERS,)? &[] as &[Parameter]].concat(),
                    payload: [$(Some(<$payload as Payload>::describe(schemas)),)? None].into_iter().flatten().next(),
                    reply: <$reply as Reply>::describe(schemas),
                }),
            },
        )*];

        /// Adds a route for each operation that is served.
        pub(crate) fn routes<A: Api>(mut router: Router, api: &Arc<A>) -> Router {
            $(
                async fn $name<A: Api>(api: Arc<A>, request: Request) -> Result<Content, ApiError> {
                    let (caller, call) = Call::begin(&*api, request).await?;
                    let by = caller.authorize::<$permission>()?;
                    let most = [$(<$payload as Payload>::MOST_BYTES,)? crate::BODY_LIMIT];
                    let call = call.receive(most[0], || api.admit_large(by.identity())).await?;
                    let reply = api
                        .$name(by, call.path::<$at>()?, $(call.query::<$query>()?,)? $(call.payload::<$payload>()?,)?)
                        .await?;
                    reply.write()
                }
                for path in [$path $(, $alias)*] {
                    let api = api.clone();
                    router = router.route(path, answering(Method::$method, move |request| $name(api.clone(), request)));
                }
            )*
            router
        }

        impl Client {
            $(
                $(#[doc = $doc])+
                pub async fn $name(
                    &self,
                    at: &$at,
                    $(query: &$query,)?
                    $(payload: &$payload,)?
                ) -> Result<$reply, ClientError> {
                    let path = crate::path::fill($path, &at.values());
                    let query: Vec<(String, String)> = [$(<$query as Query>::write(query),)? Vec::new()].concat();
                    let contents = [$(Some(<$payload as Payload>::write(payload)?),)? None];
                    let content = contents.into_iter().flatten().next().unwrap_or_default();
                    let (headers, bytes) = self.call(Method::$method, &path, &query, content).await?;
                    <$reply as Reply>::read(&headers, bytes).map_err(|reason| ClientError::Unreadable {
                        operation: $id,
                        reason,
                    })
                }
            )*
        }
    };
}

pub(crate) use operations;
