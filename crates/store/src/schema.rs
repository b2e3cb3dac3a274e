//! The layout of the store, looked at by every new leader before it reads or writes anything else. A store written by a
//! newer release is refused: its keys may mean something we do not know.

use crate::{Commit, Error, ErrorKind, Guard, Keyspace, MetadataStore, Result, Schema, SchemaKey, decode};

/// The layout that this release reads and writes.
pub const SCHEMA_VERSION: u32 = 1;

/// Makes sure that the store has our layout, writing it into an empty one. `leader` guards the write.
///
/// # Errors
/// `Config` for a newer layout; `Unavailable` if the leadership was lost meanwhile; those of the store.
pub async fn ensure_schema(store: &dyn MetadataStore, keys: &Keyspace, leader: &Guard) -> Result<Schema> {
    let key = keys.schema();
    let present = store.list(&key).await?;
    if let Some(entry) = present.get(&key) {
        let schema: Schema = decode(&key, &entry.value)?;
        if schema.version > SCHEMA_VERSION {
            let (theirs, prefix) = (schema.version, keys.all());
            let text = format!(
                "the store under `{prefix}` was written by a newer release (layout {theirs}, this one knows up to \
                 {SCHEMA_VERSION}): run that release or a newer one"
            );
            return Err(Error::new(ErrorKind::Config, text));
        }
        return Ok(schema);
    }
    let schema = Schema { version: SCHEMA_VERSION, generation: 1 };
    let guards = [leader.clone(), Guard::Absent(key)];
    match store.commit(&guards, vec![keys.put::<SchemaKey>(&(), &schema)]).await? {
        Commit::Done(_) => Ok(schema),
        Commit::Lost(_) => {
            Err(Error::new(ErrorKind::Unavailable, "leadership was lost before the first write"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EmbeddedStore, Write};

    #[tokio::test]
    async fn an_empty_store_gets_our_layout_and_keeps_it() {
        let (store, keys) = (EmbeddedStore::in_memory(), Keyspace::new("c"));
        let Commit::Done(led) =
            store.commit(&[], vec![Write::Put(keys.leader(), "{}".into())]).await.unwrap()
        else {
            panic!("lost")
        };
        let guard = Guard::Created(keys.leader(), led);
        let schema = ensure_schema(&store, &keys, &guard).await.unwrap();
        assert_eq!(schema, Schema { version: 1, generation: 1 });
        assert_eq!(ensure_schema(&store, &keys, &guard).await.unwrap(), schema);
    }

    #[tokio::test]
    async fn who_does_not_lead_writes_no_layout() {
        let (store, keys) = (EmbeddedStore::in_memory(), Keyspace::new("c"));
        let error = ensure_schema(&store, &keys, &Guard::Created(keys.leader(), 1)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert!(store.list(&keys.all()).await.unwrap().entries.is_empty());
    }

    #[tokio::test]
    async fn a_newer_layout_is_refused() {
        let (store, keys) = (EmbeddedStore::in_memory(), Keyspace::new("c"));
        let newer = keys.put::<SchemaKey>(&(), &Schema { version: 2, generation: 1 });
        store.commit(&[], vec![newer]).await.unwrap();
        let error = ensure_schema(&store, &keys, &Guard::Created(keys.leader(), 1)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Config);
        assert!(error.to_string().contains("newer release (layout 2"), "{error}");
    }
}
