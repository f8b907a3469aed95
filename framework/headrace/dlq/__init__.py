"""Dead letters: looking at them, sending them back, and letting go of them.

letters    what a letter is, and why it is there
holding    keeping letters hidden while they are looked at
groups     letters that failed alike
records    what the inbox says about a letter
redrive    sending letters back, carefully; fates: what became of them
edits      mending a body before it goes back
drop       letting go of letters, when what they caused is out
parked     what waits behind a letter goes on; blocks: what waits, and goes on without it
moving     SQS's own way to send all back at once
"""
