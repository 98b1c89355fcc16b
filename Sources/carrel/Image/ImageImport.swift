import ArgumentParser
import ControlAPI
import ControlClient

struct ImageImport: Verb {
  static let configuration = CommandConfiguration(
    commandName: "import", abstract: "Takes an image file into the library.",
    discussion: """
      FILE is an ELF kernel, an ISO, or a disk as raw, qcow2, vmdk or vdi, on carreld's host; \
      which of them is seen from the file. It is copied, and converted to raw if need be.
      """)

  @Argument(help: "The image.", completion: .file())
  var file: String

  @Option(help: "What to call it; the file's name without ending if left out.")
  var name: String?

  @OptionGroup var making: ImageMakingOptions
  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> LibraryImageDocument {
    var creation = ImageCreation(name: name ?? Self.name(of: file))
    creation.file = absolute(file)
    return try await making.make(creation, client, terminal)
  }

  static func name(of file: String) -> String {
    let last = file.split(separator: "/").last.map(String.init) ?? file
    guard let dot = last.lastIndex(of: "."), dot > last.startIndex else { return last }
    return String(last[..<dot])
  }

  func render(_ answer: LibraryImageDocument, _ terminal: Terminal) -> String {
    making.render(answer)
  }
}

/// What the two commands share that make images.
struct ImageMakingOptions: ParsableArguments {
  @Flag(help: "Do not wait until it is ready.")
  var noWait = false

  func make(
    _ creation: ImageCreation, _ client: ControlClient, _ terminal: Terminal
  ) async throws -> LibraryImageDocument {
    let begun: LibraryImageDocument = try await client.send(.POST, APIPath("images"), creation)
    guard !noWait else { return begun }
    return try await Waiting.until(
      seconds: 6 * 3600,
      ask: { () async throws -> LibraryImageDocument in
        try await client.get(APIPath("images", creation.name))
      },
      problem: { image in
        image.problem.map { "image '\(image.name)' was not made: \($0)" }
      },
      progress: {
        terminal.showProgress(
          "\($0.name): \($0.step ?? "waiting")", done: $0.percent, of: $0.percent.map { _ in 100 })
      },
      isDone: { $0.state == "ready" })
  }

  func render(_ answer: LibraryImageDocument) -> String {
    guard answer.state == "ready" else {
      return "Image \(answer.name) is being made: see 'carrel image show \(answer.name)'"
    }
    return "Image \(answer.name) is ready (\(answer.kind), \(byteText(answer.size))).\n"
      + "Next: 'carrel pool create POOL --image \(answer.name)'"
  }
}
