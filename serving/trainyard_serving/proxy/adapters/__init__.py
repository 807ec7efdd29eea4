"""The adapters of a replica: checked, loaded, replaced and removed without a restart."""
