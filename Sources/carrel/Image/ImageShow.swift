import ArgumentParser
import ControlAPI
import ControlClient

struct ImageShow: Verb {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Shows one image of the library.")

  @Argument(help: "Name of the image.", completion: .custom(Completions.images))
  var name: String

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> LibraryImageDocument {
    try await client.get(APIPath("images", name))
  }

  func render(_ answer: LibraryImageDocument, _ terminal: Terminal) -> String {
    let isReady = answer.state == "ready"
    return renderFields([
      ("name", answer.name), ("state", stateText(answer)), ("step", answer.step),
      ("problem", answer.problem), ("kind", answer.kind), ("origin", answer.origin),
      ("size", isReady ? byteText(answer.size) : nil),
      ("on disk", isReady ? byteText(answer.allocated) : nil),
      ("path", isReady ? answer.path : nil),
      ("pools", answer.pools.isEmpty ? nil : answer.pools.joined(separator: ", ")),
      ("users", answer.users.isEmpty ? nil : answer.users.joined(separator: ", ")),
      ("created", answer.created.description),
    ]) + (answer.disks.isEmpty ? "" : "\n\n" + tree(of: answer).rendered)
  }

  /// The image, and under it the templates' and desktops' disks that are based on it.
  private func tree(of image: LibraryImageDocument) -> Tree {
    let names = Set(image.disks.map { "\($0.desktop)/\($0.name)" })
    func trees(_ isRoot: (ImageDiskDocument) -> Bool) -> [Tree] {
      image.disks.filter(isRoot).map { disk in
        let name = "\(disk.desktop)/\(disk.name)"
        let owner = disk.owner.map { " (\($0))" } ?? ""
        return Tree(
          text: "\(disk.desktop)\(owner)  \(disk.name)  \(byteText(disk.allocated))"
            + (disk.isCurrent ? "  in use" : ""), children: trees { $0.base == name })
      }
    }
    return Tree(
      text: image.name, children: trees { $0.base.map { !names.contains($0) } ?? true })
  }
}
