import ArgumentParser
import ControlAPI
import ControlClient

struct ImageBuild: Verb {
  static let configuration = CommandConfiguration(
    commandName: "build", abstract: "Makes a Debian desktop image.",
    discussion: """
      A stock Debian with its stock kernel, boot loader, guest agent and, with --desktop, a \
      graphical desktop that its user is logged in to. Needs a carreld that runs as root, and \
      debootstrap. It takes some minutes.
      """)

  @Argument(help: "What to call it.")
  var name: String

  @Option(help: "Debian's release, by its code name.", completion: .list(["bookworm", "trixie"]))
  var suite = "bookworm"

  @Option(help: "xfce, lxqt or none.", completion: .list(["xfce", "lxqt", "none"]))
  var desktop = "xfce"

  @Option(help: "Size of the disk: 16G.")
  var size: MemorySize?

  @Option(
    help: ArgumentHelp(
      "Where packages come from, if not from where this host has its own.", valueName: "url"))
  var mirror: String?

  @OptionGroup var making: ImageMakingOptions
  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> LibraryImageDocument {
    var creation = ImageCreation(name: name)
    creation.suite = suite
    creation.desktop = desktop
    creation.sizeMiB = size?.mebibytes
    creation.mirror = mirror
    return try await making.make(creation, client, terminal)
  }

  func render(_ answer: LibraryImageDocument, _ terminal: Terminal) -> String {
    making.render(answer)
  }
}
