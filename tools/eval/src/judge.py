# What stands before every program: it runs what a task's function needs of an answer, and then the tests. Models add examples, asserts and
# prints of their own, which are no part of the function; EvalPlus (arXiv 2305.01210) takes answers apart for the same reason.
import ast


def parsed(text):
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def longest_program(text):
    """The most lines in a row that are a program, the first of such: the text itself, or what is left of a broken one."""
    lines = text.split("\n")
    for size in range(len(lines), 0, -1):
        for start in range(len(lines) - size + 1):
            tree = parsed("\n".join(lines[start : start + size]))
            if tree is not None and tree.body:
                return tree
    return ast.parse(text)  # says what is wrong


def defined(node):
    """Names a statement at the top gives a value to."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name}
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return set()


def used(tree):
    """Names a program uses and does not give a value to."""
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    given = {name.id for name in names if isinstance(name.ctx, ast.Store)}
    given |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    return {name.id for name in names} - given - {name for node in tree.body for name in defined(node)}


def needed(tree, entry, test):
    """Imports, and definitions that `entry` and the test reach; all definitions where `entry` is none of them."""
    names = {}
    for node in tree.body:
        for name in defined(node):
            names.setdefault(name, []).append(node)
    reached, left = set(), [entry, *used(ast.parse(test))] if entry in names else list(names)
    while left:
        name = left.pop()
        if name in names and name not in reached:
            reached.add(name)
            left += [inner.id for node in names[name] for inner in ast.walk(node) if isinstance(inner, ast.Name)]
    keep = lambda node: isinstance(node, (ast.Import, ast.ImportFrom)) or defined(node) & reached
    return ast.Module(body=[node for node in tree.body if keep(node)], type_ignores=[])


def judge(answer, entry, test):
    scope = {"__name__": "answer"}
    exec(compile(needed(longest_program(answer), entry, test), "answer", "exec"), scope)
    exec(compile(test, "test", "exec"), scope)
