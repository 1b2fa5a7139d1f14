"""libiscsi's tests of targets, run against ours and, beside it, against tgtd."""
