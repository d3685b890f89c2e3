"""Warm pools: an allocation that carries many members, one supervisor on each of its nodes.

==================  =========================================================================
supervisor          starts and ends members as the agent says; one process, one thread
work                the call by which the agent says it, in a process of its own
members, slot       one forked process for each member: the node program of its job directory
templates           what users' Pythons have imported: started, offered, drained
warm_process        one process of a template, seen from here
stay                when the allocation ends
capacity            slots, and the CPUs of each
forked              the slot program's side of a warm child
==================  =========================================================================

In the user's Python (3.9 or newer) run ``template`` (warms, forks), ``warming``, ``definitions``,
``obstacles`` (to forking), ``removals`` (one of them), ``imported`` (what workers take over),
``guardian`` (parent of one worker) and ``worker``. They import nothing but the standard library
and, by name, what the user has installed.
"""
