"""Random faults at any instant: the real round loop and the real site app in forked processes, hundreds of studies.

tests/faults kills the programs that hospitals and coordinators run, at chosen calls; a study there takes ten seconds
or more. Here only Flower's transport is another, kept in the test's own process with Flower's rules (a message is
handed out once, a node that restarts has forgotten its own, a reply is gone once it was pulled), so that a study takes
a few seconds and a process can be killed between any two instructions.
"""
