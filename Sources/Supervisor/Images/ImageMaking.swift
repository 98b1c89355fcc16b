import Brokering
import LinuxSystem

/// One image on its way into the library. Its thread works; others look how far it is,
/// or end it.
final class ImageMaking: Sendable {
  enum Source: Hashable, Sendable {
    case file(ForeignImage)
    case recipe(ImageRecipe, builder: String)

    var kind: Image.Kind {
      if case .file(let file) = self { return file.kind }
      return .disk
    }

    var origin: String {
      switch self {
      case .file(let file): "imported from \(file.path)"
      case .recipe(let recipe, _):
        "Debian \(recipe.suite)"
          + (recipe.desktop == .none ? ", no desktop" : " with \(recipe.desktop.rawValue)")
      }
    }
  }

  private struct Progress {
    var step: String
    var percent: Int?
    var process: ProcessHandle?
    var isUnwanted = false
  }

  let directory: ImageDirectory
  let source: Source
  let begun: Timestamp
  private let progress: Guarded<Progress>

  init(_ source: Source, in directory: ImageDirectory, begun: Timestamp) {
    self.source = source
    self.directory = directory
    self.begun = begun
    progress = Guarded(Progress(step: "beginning"))
  }

  var state: LibraryImage.State {
    progress.withLock { .making(step: $0.step, percent: $0.percent) }
  }

  /// Ends it soon; what it had made is removed.
  func cancel() {
    progress.withLock {
      $0.isUnwanted = true
      try? $0.process?.send(.terminate)
    }
  }

  /// Makes the image. Afterwards it is whole, or nothing is left of it but the log.
  func run() throws {
    do {
      try directory.create()
      try make()
      guard !progress.withLock({ $0.isUnwanted }) else { throw Self.cancelled }
      tell("writing to disk", nil)
      try directory.finish(
        .init(kind: source.kind, origin: source.origin, created: begun))
    } catch {
      // The error that is told is the first one.
      try? directory.delete()
      throw error
    }
  }

  private static let cancelled = BrokerError(.conflict, "it was deleted while it was made")

  private func make() throws {
    if case .file(let file) = source, file.format == .kernel { return try copy(file) }
    let log = try FileDescriptor.open(directory.log, [.writeOnly, .create, .truncate])
    let (program, arguments) = command
    let tool = try ImageTool(program, arguments, errors: log)
    progress.withLock {
      $0.process = tool.child.handle
      if $0.isUnwanted { try? tool.child.handle.send(.terminate) }
    }
    read(tool.output)
    let exit = try tool.child.wait()
    progress.withLock { $0.process = nil }
    guard !progress.withLock({ $0.isUnwanted }) else { throw Self.cancelled }
    guard exit == .exited(0) else {
      let said = (try? Files.read(directory.log, limit: 1 << 24)) ?? []
      throw BrokerError(
        .host,
        "\(progress.withLock { $0.step }) failed: \(ImageTool.lastLine(of: said)); "
          + "see \(directory.log)")
    }
  }

  /// As it is: what reads disks would fill its last sector.
  private func copy(_ file: ForeignImage) throws {
    tell("copying", 0)
    let kernel = try FileDescriptor.open(file.path)
    let draft = try FileDescriptor.open(directory.draft, [.writable, .create, .truncate])
    let size = try kernel.size()
    try kernel.copySparse(to: draft, size: size) { done in
      tell("copying", Int(min(100, done * 100 / max(1, size))))
    }
  }

  private var command: (String, [String]) {
    switch source {
    case .file(let file):
      tell("copying", 0)
      return (
        ImageTool.converter,
        [
          "convert", "-p", "-f", file.format.driver, "-O", "raw", "--", file.path,
          directory.draft,
        ]
      )
    case .recipe(let recipe, let builder):
      var arguments = [
        "--suite", recipe.suite, "--desktop", recipe.desktop.rawValue,
        "--size", "\(recipe.sizeMiB)", "--output", directory.draft,
      ]
      if let mirror = recipe.mirror { arguments += ["--mirror", mirror] }
      return (builder, arguments)
    }
  }

  private func tell(_ step: String, _ percent: Int?) {
    progress.withLock {
      $0.step = step
      $0.percent = percent
    }
  }

  /// Follows what the program says until it closes its output: `qemu-img`'s
  /// `(12.34/100%)`, the builder's `12% what it does`.
  private func read(_ output: FileDescriptor) {
    var rest: [UInt8] = []
    while let bytes = try? output.read(upTo: 4096), !bytes.isEmpty {
      rest += bytes
      while let end = rest.firstIndex(where: { $0 == 10 || $0 == 13 }) {
        let line = String(decoding: rest[..<end], as: UTF8.self)
        rest.removeFirst(end + 1)
        if let (percent, step) = Self.parse(line) {
          progress.withLock {
            $0.percent = percent
            if let step { $0.step = step }
          }
        }
      }
      if rest.count > 1 << 16 { rest = [] }
    }
  }

  static func parse(_ line: String) -> (percent: Int, step: String?)? {
    let text = line.drop { $0 == " " || $0 == "(" }
    guard let percent = Int(text.prefix { $0.isASCII && $0.isNumber }), percent <= 100 else {
      return nil
    }
    guard let sign = text.firstIndex(of: "%") else { return nil }
    if text.contains("/") && line.hasPrefix(" ") { return (percent, nil) }
    let step = text[text.index(after: sign)...].drop { $0 == " " }
    return (percent, step.isEmpty ? nil : String(step))
  }
}
