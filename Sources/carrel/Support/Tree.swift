/// Lines under lines, drawn with branches.
struct Tree {
  let text: String
  var children: [Tree] = []

  /// Ends without a newline.
  var rendered: String { ([text] + lines(of: children)).joined(separator: "\n") }

  private func lines(of trees: [Tree]) -> [String] {
    trees.indices.flatMap { index in
      let isLast = index == trees.count - 1
      let below = lines(of: trees[index].children)
      return ["\(isLast ? "└─" : "├─") \(trees[index].text)"]
        + below.map { (isLast ? "   " : "│  ") + $0 }
    }
  }
}
