//! The contract, held against the engines of this crate.

mod memory {
    use std::sync::Arc;

    use crate::conformance::Subject;
    use crate::memory::MemoryStore;

    fn make(_: u32) -> Subject {
        (Arc::new(MemoryStore::new()), Box::new(()))
    }
    crate::conformance_tests!(make, attempts: 1);
}

mod chaos {
    use std::sync::Arc;

    use crate::chaos::ChaosStore;
    use crate::conformance::Subject;
    use crate::memory::MemoryStore;

    /// Another seed for each attempt: a test that is upset must be finished by luck, not by patience.
    fn make(attempt: u32) -> Subject {
        (Arc::new(ChaosStore::new(MemoryStore::new(), attempt.into())), Box::new(()))
    }
    crate::conformance_tests!(make, attempts: 60);
}
