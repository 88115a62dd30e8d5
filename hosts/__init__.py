"""Who runs transfers: threads, a child process, and what moves downloads between them. Knows no Blender."""
