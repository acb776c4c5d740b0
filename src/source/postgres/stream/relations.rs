//! From the log's relations to captured tables, and to plans that decode their rows.
//!
//! A Relation message comes before the first row after anything changed, in the transaction's order. Its plan is made with
//! the first row that is wanted: a table loaded later may have looked different here. If its columns differ from those of
//! the followed table, the table's schema changes just there.
//!
//! Where the publication sends partitions under their own names, their rows go to the captured root, each partition by a
//! plan of its own: its columns may be in another order (K-4).

use bytes::Bytes;
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use tracing::warn;

use super::Follower;
use crate::schema::TableName;
use crate::source::Error;
use crate::source::postgres::attributes::Description;
use crate::source::postgres::catalog;
use crate::source::postgres::connection::connect;
use crate::source::postgres::difference::{self, Known};
use crate::source::postgres::pgoutput::{self, Message, Relation};
use crate::source::postgres::plan::Plan;
use crate::source::postgres::types::ResolvedType;

/// A captured table, or a partition of one, as its last Relation message describes it.
pub(super) struct Announced {
    /// The captured table.
    pub name: TableName,
    /// As the message names it.
    pub relation: TableName,
    pub message: Bytes,
    /// See the module text.
    pub plan: Option<Plan>,
}

const ANOTHER: &str = "it was dropped and created again, or another table took its name";

impl Follower<'_> {
    /// Takes note of how the rows of a relation are laid out from here on.
    pub(super) async fn announce(&mut self, relation: &Relation<'_>, message: &Bytes) -> Result<(), Error> {
        let found = TableName::new(relation.namespace, relation.name);
        let renamed = self.tables.iter().find(|(name, followed)| {
            **name != found && followed.attributes.as_ref().is_some_and(|attributes| attributes.oid == relation.id)
        });
        if let Some(before) = renamed.map(|(name, _)| name.clone())
            && !self.stopped.contains(&before)
            && !self.skips(&before)
        {
            self.renamed(&before, &found, None).await?;
        }
        let name = if self.tables.contains_key(&found) || !self.by_leaves {
            found.clone()
        } else {
            self.root_of(relation.id, &found).await?.unwrap_or_else(|| found.clone())
        };
        let captured = self.tables.contains_key(&name) && !self.stopped.contains(&name);
        let announced = captured.then(|| Announced { name, relation: found, message: message.clone(), plan: None });
        self.relations.insert(relation.id, announced);
        Ok(())
    }

    /// The captured table that this one is a partition of.
    async fn root_of(&mut self, id: u32, leaf: &TableName) -> Result<Option<TableName>, Error> {
        if let Some(root) = self.roots.get(leaf) {
            return Ok(root.clone());
        }
        let known = self.tables.keys().find(|name| self.notes.has_leaf(name, leaf)).cloned();
        let root = match known {
            Some(root) => Some(root),
            // Made or renamed since: the catalog knows. One that is gone again already has left no rows behind.
            None => {
                let ancestors = catalog::ancestors(self.catalog().await?, id).await?;
                ancestors.into_iter().find(|ancestor| self.tables.contains_key(ancestor))
            }
        };
        self.roots.insert(leaf.clone(), root.clone());
        Ok(root)
    }

    /// Makes the decode plan of a relation, telling how its table changed, or stops its table.
    pub(super) async fn plan(&mut self, id: u32) -> Result<(), Error> {
        let Some(Some(announced)) = self.relations.get(&id) else { return Ok(()) };
        let (name, found) = (announced.name.clone(), announced.relation.clone());
        let message = announced.message.clone();
        let Ok(Message::Relation(relation)) = pgoutput::decode(&message) else {
            return Err(self.unreadable("a relation that can't be read again"));
        };
        let Some(followed) = self.tables.get(&name) else { return Ok(()) };
        let oid = followed.attributes.as_ref().map(|attributes| attributes.oid);
        let itself = found == name;
        let another = self.relations.iter().any(|(&other, announced)| {
            other != id && announced.as_ref().is_some_and(|other| other.relation == found && other.plan.is_some())
        });
        if another || itself && oid.is_some_and(|oid| oid != id) {
            return self.stop_untold(&name, ANOTHER.into(), super::RELOAD).await;
        }
        let wanted: Vec<(u32, i32)> = relation.columns.iter().map(|column| (column.type_oid, column.typmod)).collect();
        let mut types = self.types(&wanted).await?;
        let now = self.description(&name, oid.or(itself.then_some(id))).await?;
        let contract = self.contract(&name);
        let told = self.told;
        let Some(followed) = self.tables.get(&name) else { return Ok(()) };
        for (column, found) in relation.columns.iter().zip(&mut types) {
            let known = followed.attributes.as_ref().and_then(|attributes| attributes.named(column.name));
            // The type was dropped since, and the column with it.
            if found.name == catalog::NO_TYPE
                && let Some(known) = known.filter(|known| known.type_oid == column.type_oid)
            {
                found.clone_from(&known.found);
            }
        }
        let known = Known {
            schema: &followed.schema,
            attributes: followed.attributes.as_ref(),
            contract: &contract,
            ignored: &followed.ignored,
        };
        match difference::by_relation(known, &relation, &types, now.as_ref(), (itself, told)) {
            Ok(found) => self.adopt(&name, found, None).await?,
            Err(finding) => return self.stop_untold(&name, finding, super::REMEDY).await,
        }
        let Some(followed) = self.tables.get(&name) else { return Ok(()) };
        // What is left out under a name that the contract does not know.
        let attributes = followed.attributes.iter().flat_map(|attributes| &attributes.columns);
        let mut left_out: Vec<String> =
            attributes.filter(|column| column.left_out).map(|column| column.name.clone()).collect();
        left_out.extend(contract.exclude);
        left_out.extend(followed.ignored.iter().cloned());
        match Plan::for_relation(&relation, &types, &followed.schema, &left_out) {
            Ok(plan) => {
                if let Some(Some(announced)) = self.relations.get_mut(&id) {
                    announced.plan = Some(plan);
                }
                Ok(())
            }
            Err(finding) => self.stop_table(&name, finding, super::REMEDY).await,
        }
    }

    /// The table as the catalog has it now, by its oid where that is known; `None` if it is gone.
    async fn description(&mut self, name: &TableName, oid: Option<u32>) -> Result<Option<Description>, Error> {
        let connection = self.catalog().await?;
        let table = match oid {
            Some(oid) => catalog::described_by_oid(connection, oid).await?,
            None => catalog::described(connection, std::slice::from_ref(name)).await?.pop(),
        };
        Ok(table.as_ref().map(Description::from))
    }

    pub(super) async fn types(&mut self, wanted: &[(u32, i32)]) -> Result<Vec<ResolvedType>, Error> {
        catalog::resolved(self.catalog().await?, wanted).await
    }

    /// A session to ask the catalog.
    pub(super) async fn catalog(&mut self) -> Result<&mut PgConnection, Error> {
        // One that was idle for long may be gone.
        let kept = match self.catalog.take() {
            Some(mut connection) => match connection.ping().await {
                Ok(()) => Some(connection),
                Err(error) => {
                    warn!(%error, "the catalog session failed, opening another");
                    None
                }
            },
            None => None,
        };
        let connection = match kept {
            Some(connection) => connection,
            None => connect(self.config).await?,
        };
        Ok(self.catalog.insert(connection))
    }
}
