//! The classes of contents: each has thresholds, an egress policy and direct clients of its own.

use crate::{Config, EgressPolicy};
use hybrid_qos::{ConfigError, DirectClients, Engine, Load, Newcomer, Refused, Sample};
use hybrid_units::{BytesPerSecond, Instant};

/// A class's place; 0 is the class of contents for which no other is named.
pub(crate) type ClassIndex = usize;

#[derive(Debug)]
pub(crate) struct Class {
    pub(crate) name: String,
    pub(crate) engine: Engine,
    pub(crate) egress_policy: EgressPolicy,
    /// Its clients in client/server mode.
    pub(crate) direct_clients: u32,
}

impl Class {
    fn new(name: &str, qos: &hybrid_qos::Config, egress_policy: EgressPolicy) -> Result<Self, ConfigError> {
        let mut qos = qos.clone();
        if egress_policy == EgressPolicy::Thrifty {
            // A direct client costs a whole copy, so there is one only where there is nobody to send it to.
            qos.direct_clients = DirectClients::Fixed(0);
        }
        Ok(Self { name: name.to_owned(), engine: Engine::new(qos)?, egress_policy, direct_clients: 0 })
    }

    /// What its direct clients are owed.
    fn owed(&self) -> u64 {
        self.engine.config().required_rate.as_u64().saturating_mul(self.direct_clients.into())
    }
}

#[derive(Debug)]
pub(crate) struct Quality {
    base: Class,
    others: Vec<Class>,
}

impl Quality {
    pub(crate) fn new(config: &Config) -> Result<Self, ConfigError> {
        let other = |class: &crate::ClassConfig| Class::new(&class.name, &class.qos, class.egress_policy);
        Ok(Self {
            base: Class::new("file", &config.qos, config.egress_policy)?,
            others: config.classes.iter().map(other).collect::<Result<_, _>>()?,
        })
    }

    /// The class of that name; the first one where there is none.
    pub(crate) fn find(&self, name: Option<&str>) -> ClassIndex {
        let place = name.and_then(|name| self.others.iter().position(|class| class.name == name));
        place.map_or(0, |place| place + 1)
    }

    pub(crate) fn class(&self, index: ClassIndex) -> &Class {
        index.checked_sub(1).and_then(|place| self.others.get(place)).unwrap_or(&self.base)
    }

    pub(crate) fn class_mut(&mut self, index: ClassIndex) -> &mut Class {
        index.checked_sub(1).and_then(|place| self.others.get_mut(place)).unwrap_or(&mut self.base)
    }

    pub(crate) fn len(&self) -> usize {
        self.others.len() + 1
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Class> {
        std::iter::once(&self.base).chain(&self.others)
    }

    /// All classes share the link and the processors.
    pub(crate) fn sample(&mut self, now: Instant, sample: Sample) -> Result<(), Refused> {
        for class in std::iter::once(&mut self.base).chain(&mut self.others) {
            class.engine.sample(now, sample)?;
        }
        Ok(())
    }

    pub(crate) fn direct_clients(&self) -> u32 {
        self.iter().fold(0, |sum, class| sum.saturating_add(class.direct_clients))
    }

    pub(crate) fn load(&self, index: ClassIndex, holders_reachable: u32) -> Load {
        Load { direct_clients: self.class(index).direct_clients, holders_reachable }
    }

    /// A newcomer to a class, beside what is owed to the direct clients of the others.
    pub(crate) fn newcomer(&self, index: ClassIndex, holders_reachable: u32, control: bool) -> Newcomer {
        let all = self.iter().fold(0u64, |sum, class| sum.saturating_add(class.owed()));
        let reserved = BytesPerSecond::new(all.saturating_sub(self.class(index).owed()));
        Newcomer { load: self.load(index, holders_reachable), reserved, control, ..Newcomer::default() }
    }
}
