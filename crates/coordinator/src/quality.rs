//! The classes of contents: each has thresholds, an egress policy and direct clients of its own.

use crate::{Config, EgressPolicy};
use hybrid_qos::{ConfigError, DirectClients, Engine, Load, Newcomer, Refused, Sample};
use hybrid_units::{BytesPerSecond, Duration, Instant};

/// A class's place; 0 is the class of contents for which no other is named.
pub(crate) type ClassIndex = usize;

/// What may be sent at a rate that changes.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    /// When all that was sent would have gone out at the rate.
    until: Instant,
}

impl Budget {
    /// So many bytes may go now, or not before some time; `ahead` is how far what is sent may be ahead of the rate.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        rate: Option<BytesPerSecond>,
        bytes: u64,
        ahead: Duration,
    ) -> Result<(), Duration> {
        let Some(rate) = rate else { return Ok(()) };
        let until = self.until.max(now);
        if until.since(now) > ahead {
            return Err(until.since(now) - ahead);
        }
        self.until = until + rate.time_for(bytes);
        Ok(())
    }
}

#[derive(Debug)]
pub(crate) struct Class {
    pub(crate) name: String,
    pub(crate) engine: Engine,
    pub(crate) egress_policy: EgressPolicy,
    /// Its clients in client/server mode.
    pub(crate) direct_clients: u32,
    /// Help for clients in the swarm.
    pub(crate) rescue: Budget,
}

impl Class {
    fn new(name: &str, qos: &hybrid_qos::Config, egress_policy: EgressPolicy) -> Result<Self, ConfigError> {
        let mut qos = qos.clone();
        if egress_policy == EgressPolicy::Thrifty {
            // A direct client costs a whole copy, so there is one only where there is nobody to send it to.
            qos.direct_clients = DirectClients::Fixed(0);
        }
        Ok(Self {
            name: name.to_owned(),
            engine: Engine::new(qos)?,
            egress_policy,
            direct_clients: 0,
            rescue: Budget::default(),
        })
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

    /// How long bytes wait in the server before they are sent: those of all classes.
    pub(crate) fn queue_delay(&mut self, now: Instant, delay: Duration) -> Result<(), Refused> {
        for class in std::iter::once(&mut self.base).chain(&mut self.others) {
            class.engine.queue_delay(now, delay)?;
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_a_rate_with_a_start() {
        let mut budget = Budget::default();
        let mut take = |millis, rate: Option<u64>| {
            let (now, ahead) = (Instant::ZERO + Duration::from_millis(millis), Duration::from_secs(2));
            budget.take(now, rate.map(BytesPerSecond::new), 1_000, ahead).map_err(|wait| wait.as_millis())
        };
        assert_eq!([take(0, Some(1_000)), take(0, Some(1_000)), take(0, Some(1_000))], [Ok(()); 3]);
        assert_eq!(take(0, Some(1_000)), Err(1_000));
        assert_eq!(take(0, None), Ok(()), "without a rate there is no budget");
        assert_eq!([take(1_000, Some(500)), take(1_000, Some(500))], [Ok(()), Err(2_000)]);
    }
}
