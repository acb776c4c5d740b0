//! Named steps of what must be whole or not there: a debug build waits at the one that LAKEWARD_WAIT_AT names, so that a test
//! can kill it there, or do something else meanwhile (LAKEWARD_WAIT_SECONDS). A release build has none of this.

/// Says and waits, if this step is the one.
pub async fn reached(step: &'static str) {
    if cfg!(debug_assertions) && std::env::var_os("LAKEWARD_WAIT_AT").is_some_and(|wanted| wanted == step) {
        tracing::warn!("waiting at {step}, as LAKEWARD_WAIT_AT says");
        let seconds = std::env::var("LAKEWARD_WAIT_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
        tokio::time::sleep(std::time::Duration::from_secs(seconds)).await;
    }
}
