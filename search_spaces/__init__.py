"""One question a file: constants only. The file's name is what you type, its first line is the question."""
