"""One file per CNI; the file's name is the name in ``testbed up NAME``. Pure."""
