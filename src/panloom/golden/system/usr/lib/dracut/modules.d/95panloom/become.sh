#!/bin/sh
# Sourced by dracut once the root file system is mounted.
/usr/lib/panloom/become "$NEWROOT"
