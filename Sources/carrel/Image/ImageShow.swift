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

  /// The image, the desktops whose disks are based on it, and what those are made of.
  private func tree(of image: LibraryImageDocument) -> Tree {
    func layers(_ disks: [ImageDiskDocument], over base: String?) -> [Tree] {
      disks.filter { $0.base == base }.map { disk in
        Tree(
          text: "\(disk.name)  \(byteText(disk.allocated))" + (disk.isCurrent ? "  in use" : ""),
          children: layers(disks, over: disk.name))
      }
    }
    let desktops = Dictionary(grouping: image.disks, by: \.desktop)
    return Tree(
      text: image.name,
      children: desktops.keys.sorted().map { desktop in
        let disks = desktops[desktop] ?? []
        let owner = disks.first?.owner.map { " (\($0))" } ?? ""
        return Tree(text: desktop + owner, children: layers(disks, over: nil))
      })
  }
}
