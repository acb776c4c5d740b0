//! Tables that the configuration selects and that nobody follows yet.
//!
//! Those that the source was discovered with are known. Another one is told once it can be followed: it exists, its changes
//! tell which row they are about, and the publication has it or lakeward may add it. Until then what is in the way is said
//! once, for a table that can't be followed must not keep the others from going on.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::postgres::PgConnection;
use tracing::warn;

use super::catalog::{self, CatalogTable};
use super::publication;
use crate::config::{Contracts, SourceConfig};
use crate::schema::TableName;
use crate::source::Error;

/// A table that could not be followed is looked at again after this many looks.
const PATIENCE_LOOKS: u32 = 20;

/// What discovery made of the tables that the configuration selects.
#[derive(Clone, Debug, Default)]
pub struct Chosen {
    pub taken: BTreeSet<TableName>,
    pub passed_over: BTreeSet<TableName>,
}

#[derive(Clone, Debug, Default)]
pub struct Newcomers {
    /// `None` until the first look, which takes all that are there as known.
    known: Option<BTreeSet<TableName>>,
    /// Looks until the next try.
    waiting: BTreeMap<TableName, u32>,
}

impl Newcomers {
    /// `chosen`: when the tables were chosen, those that were, and those that could not be.
    pub fn new(chosen: Option<Chosen>) -> Self {
        let Some(Chosen { taken, passed_over }) = chosen else { return Self::default() };
        let waiting = passed_over.into_iter().map(|name| (name, PATIENCE_LOOKS)).collect();
        Self { known: Some(taken), waiting }
    }

    /// Those that came since, each once.
    pub async fn look(
        &mut self,
        connection: &mut PgConnection,
        config: &SourceConfig,
        contracts: &Contracts,
    ) -> Result<Vec<TableName>, Error> {
        let mut names = catalog::names(connection).await?;
        names.retain(|name| config.tables.selects(&name.to_string()));
        let Some(known) = &mut self.known else {
            self.known = Some(names.into_iter().collect());
            return Ok(Vec::new());
        };
        // Whoever is gone may come again.
        known.retain(|name| names.contains(name));
        self.waiting.retain(|name, _| names.contains(name));
        names.retain(|name| !known.contains(name));
        names.retain(|name| match self.waiting.get_mut(name) {
            Some(looks) if *looks > 0 => {
                *looks -= 1;
                false
            }
            _ => true,
        });
        let ready = ready(connection, config, contracts, &names, |name| !self.waiting.contains_key(name)).await?;
        for name in names {
            if ready.contains(&name) {
                self.waiting.remove(&name);
                known.insert(name);
            } else {
                self.waiting.insert(name, PATIENCE_LOOKS);
            }
        }
        Ok(ready)
    }
}

/// Those of `names` that can be followed. Of the others `say` decides whether it is said why not.
pub async fn ready(
    connection: &mut PgConnection,
    config: &SourceConfig,
    contracts: &Contracts,
    names: &[TableName],
    say: impl Fn(&TableName) -> bool,
) -> Result<Vec<TableName>, Error> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let mut tables = catalog::described(connection, names).await?;
    tables.retain(|table| !table.ancestors.iter().any(|ancestor| config.tables.selects(ancestor)));
    let published = publication::find(connection, &config.publication).await?;
    if let Some(publication) = &published {
        publication.mark(&mut tables);
    }
    let mut ready = Vec::new();
    for table in &tables {
        let obstacle = if table.persistence != "p" {
            Some("it is unlogged or temporary, so its changes are not in the log".to_owned())
        } else if !table.capturable(&config.name, contracts) {
            Some(format!(
                "its changes would not tell which row they are about; {}",
                publication::identity_remedy(table)
            ))
        } else if !(table.readable && table.schema_usable) || table.row_security {
            Some(format!("user `{}` may not read it, or not all of its rows", config.user))
        } else {
            let one: [&CatalogTable; 1] = [table];
            let problems = publication::problems(config, contracts, published.as_ref(), &one, false);
            problems.into_iter().next().map(|problem| format!("{}; {}", problem.finding, problem.remedy))
        };
        match obstacle {
            None => ready.push(table.name()),
            Some(obstacle) if say(&table.name()) => {
                warn!(source = config.name, table = %table.name(), "a new table is selected and not followed: {obstacle}");
            }
            Some(_) => {}
        }
    }
    Ok(ready)
}
