//! Splices on S3: the old bytes never leave the store, where it can copy them.

use std::collections::BTreeMap;
use std::sync::Arc;

use lakeward::lake::Lake;
use lakeward::lake::splice::{How, SplicedFile, Splicer, splice_file, upgrade};
use lakeward::schema::LakeType;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::json;
use url::Url;

use super::{kinds, run};
use crate::support::{Scratch, setting};

struct Store {
    objects: Arc<dyn ObjectStore>,
    splicer: Splicer,
    /// Of the table, in the bucket.
    folder: String,
}

impl Store {
    fn new(port: &str) -> Self {
        let endpoint = format!("http://127.0.0.1:{port}");
        let objects = AmazonS3Builder::new()
            .with_bucket_name("lake")
            .with_endpoint(&endpoint)
            .with_allow_http(true)
            .with_region("us-east-1")
            .with_access_key_id("S3RVER")
            .with_secret_access_key("S3RVER")
            .build();
        let options = BTreeMap::from(
            [
                ("aws_endpoint_url", endpoint.as_str()),
                ("aws_allow_http", "true"),
                ("aws_region", "us-east-1"),
                ("aws_access_key_id", "S3RVER"),
                ("aws_secret_access_key", "S3RVER"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
        let folder = format!("splice-{}/shop/goods", uuid::Uuid::new_v4().simple());
        let url = Url::parse(&format!("s3://lake/{folder}")).expect("a URL");
        let splicer = Splicer::new(&Lake::new(&url, &options), &url).expect("reachable");
        Self { objects: Arc::new(objects.expect("settings")), splicer, folder }
    }

    async fn put(&self, name: &str, bytes: Vec<u8>) {
        self.objects
            .put(&Path::parse(format!("{}/{name}", self.folder)).expect("a path"), bytes.into())
            .await
            .expect("put");
    }

    async fn get(&self, name: &str) -> Vec<u8> {
        let path = Path::parse(format!("{}/{name}", self.folder)).expect("a path");
        self.objects.get(&path).await.expect("it is there").bytes().await.expect("read").to_vec()
    }
}

/// Splices a file whose path a URL has to encode, and lets the other engines read what came of it.
async fn splice(store: &Store, bytes: &[u8]) -> SplicedFile {
    let name = "state=a%20b/part+1.parquet";
    store.put(name, bytes.to_vec()).await;
    let schema = kinds::schema();
    let ops =
        [kinds::add("n", LakeType::String), kinds::widen("small", LakeType::Long), kinds::rename("name", "title")];
    let reached = kinds::after(&schema, &ops);
    let done = splice_file(&store.splicer, &kinds::file(name, bytes.len()), &schema, &reached, &ops).await;
    let done = done.expect("spliced");
    assert_eq!(done.how, How::Spliced);
    assert!(done.add.path.starts_with("state=a%20b/part-"), "{}", done.add.path);
    let new = store.get(&done.add.path).await;
    assert_eq!(new.len() as i64, done.add.size);
    if let Some(python) = setting("LAKEWARD_TEST_PYTHON") {
        let scratch = Scratch::new("splice-s3");
        let at = |name: &str| scratch.path().join(name);
        let rows = upgrade(&kinds::rows(), &reached, &ops).expect("in memory");
        std::fs::write(at("spliced.parquet"), new).expect("written");
        std::fs::write(at("expected.parquet"), kinds::encode(&rows, false)).expect("written");
        let entry = json!([{"kind": "s3", "spliced": at("spliced.parquet"), "expected": at("expected.parquet")}]);
        std::fs::write(at("manifest.json"), entry.to_string()).expect("written");
        run(&python, "splices.py", &at("manifest.json"));
    }
    done
}

#[tokio::test]
async fn the_store_copies_what_does_not_change() {
    let Some(port) = setting("LAKEWARD_TEST_S3_PORT") else { return };
    let store = Store::new(&port);
    let bytes = kinds::encode(&kinds::rows(), true);
    let done = splice(&store, &bytes).await;
    let share = |part: u64| part as f64 / bytes.len() as f64;
    assert!(share(done.bytes_sent) < 0.05 && share(done.bytes_received) < 0.05, "{done:?} of {}", bytes.len());
}

#[tokio::test]
async fn small_objects_are_fetched_and_sent() {
    let Some(port) = setting("LAKEWARD_TEST_S3_PORT") else { return };
    let store = Store::new(&port);
    // Below S3's smallest part.
    let bytes = kinds::encode(&kinds::rows().slice(0, 10_000), true);
    store.put("small.parquet", bytes.clone()).await;
    let (schema, ops) = (kinds::schema(), [kinds::rename("name", "title")]);
    let file = kinds::file("small.parquet", bytes.len());
    let done = splice_file(&store.splicer, &file, &schema, &kinds::after(&schema, &ops), &ops).await.expect("spliced");
    assert_eq!((done.how, done.rows), (How::Spliced, 10_000));
    assert!(done.bytes_sent > bytes.len() as u64 / 2);
    let new = store.get(&done.add.path).await;
    assert_eq!((new.len() as i64, &new[..1000]), (done.add.size, &bytes[..1000]));
}

/// This server knows no part copies.
#[tokio::test]
async fn a_store_that_does_not_copy_gets_the_bytes_sent() {
    let Some(port) = setting("LAKEWARD_TEST_S3_UNSAFE_PORT") else { return };
    let store = Store::new(&port);
    let bytes = kinds::encode(&kinds::rows(), true);
    let done = splice(&store, &bytes).await;
    assert!(done.bytes_sent as usize > bytes.len() * 9 / 10, "{done:?} of {}", bytes.len());
}
