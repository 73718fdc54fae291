"""How fast a preset trains, evaluates and answers on this machine, on invented data of the dataset's real size."""
