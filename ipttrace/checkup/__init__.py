"""What on a host or in a namespace changes what a trace can show: facts in, findings out.

`facts` are the values that `ipttrace.system.facts` reads; `examine` says of each whether it is as
a trace needs it, and if not, what to do.
"""
