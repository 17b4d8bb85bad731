from dcodp.importance.nuclear import direct_nuclear_coupling, gram, nuclear_coupling, nuclear_coupling_from_gram
