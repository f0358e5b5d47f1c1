"""Ask every silo and merge what they answer; no network and no NVFlare here."""
