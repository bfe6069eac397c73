"""The C-STORE receiver: clips that a scanner or a PACS sends, into the queue of clips."""
