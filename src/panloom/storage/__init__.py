"""Block storage: what is exported, how it is kept, and how it is served over iSCSI."""
