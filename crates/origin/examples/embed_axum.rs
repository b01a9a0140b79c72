//! The content server inside a host of your own: mounted under `/media` in an axum router, beside the host's routes.
//!
//! `cargo run -p hybrid-origin --example embed_axum -- FOLDER` serves `FOLDER` at `http://127.0.0.1:8081/media/`.
//!
//! The host does three things: it mounts the service with its base path, it lets the service know where requests come from,
//! and it says good-bye to the clients when it ends.

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::get;
use hybrid_origin::{ClientAddress, Config, Identity, Origin};
use std::net::SocketAddr;

/// The host's router with the content server in it.
pub(crate) fn router(origin: &Origin) -> Router {
    Router::new()
        .route("/", get(|| async { "the host's own page" }))
        .nest_service("/media", origin.service_at("/media"))
        .layer(from_fn(client_address))
}

/// Tells the service the address that the host's listener saw. Behind a proxy, this is the place to believe its header.
async fn client_address(ConnectInfo(client): ConnectInfo<SocketAddr>, mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(ClientAddress(client));
    next.run(request).await
}

#[allow(dead_code, reason = "a test includes this file as a module")]
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("usage: embed_axum FOLDER")?;
    let origin = Origin::open(folder.as_ref(), Identity::ephemeral()?, Config::default())?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8081").await?;
    let app = router(&origin).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            drop(tokio::signal::ctrl_c().await);
            origin.close();
        })
        .await?;
    Ok(())
}
