//! What answers a path, by method.

use std::sync::Arc;

use axum::handler::Handler;
use axum::routing::{self, MethodRouter};

use crate::Api;
use crate::edge::Edged;

/// The handlers of one path, each with the edge around it: there is no way to add one without.
#[derive(Clone)]
pub(super) struct Methods(MethodRouter<Arc<Api>>);

impl Methods {
    pub(super) fn into_router(self) -> MethodRouter<Arc<Api>> {
        self.0
    }
}

macro_rules! methods {
    ($($first:ident)+; $($next:ident)+) => { $(
        pub(super) fn $first<H, T>(handler: H) -> Methods
        where
            H: Handler<T, Arc<Api>, Future: Unpin>,
            T: 'static,
        {
            Methods(routing::$first(Edged(handler)))
        }
    )+
    impl Methods { $(
        pub(super) fn $next<H, T>(self, handler: H) -> Self
        where
            H: Handler<T, Arc<Api>, Future: Unpin>,
            T: 'static,
        {
            Self(self.0.$next(Edged(handler)))
        }
    )+ }
    };
}
// Where there are several, `get` comes first.
methods! { delete get post put; delete post put }
