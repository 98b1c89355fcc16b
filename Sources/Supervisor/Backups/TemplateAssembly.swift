import Brokering
import FoundationEssentials
import Glibc
import LinuxSystem
import QMP

/// Makes a generation of a template of the files of an archive, which lie under `root` as they
/// lay in the state directory that they came from. They may be hostile: of what its disk says
/// it is based on nothing stays, and before any of it is in its place a machine was made of it.
struct TemplateAssembly: Sendable {
  let manifest: TemplateManifest
  let root: String
  /// What it becomes.
  let template: TemplateDirectory
  /// Where it is tried.
  let trial: String
  let stateRoot: String
  let runtimeRoot: String
  /// Of `carrel-vmm`.
  let program: String
  let task: BackupTask
  let failpoints: Failpoints

  private var machine: TemplateMachine { manifest.machine(in: stateRoot) }

  private var trialTemplate: TemplateDirectory {
    TemplateDirectory(
      pool: template.pool, generation: template.generation, stateRoot: trial,
      runtimeRoot: runtimeRoot)
  }

  /// Blocks. `root` is used up by it. Afterwards the template exists, or nothing of it.
  ///
  /// - Returns: whether its image came to the library with it.
  func run() throws -> Bool {
    try manifest.checkFiles(in: root)
    let hasImage = try checkImage()
    let record = try prepare()
    failpoints.hit("template.import.prepared")
    task.tell("trying it")
    try attempt(record)
    try task.checkWanted()
    task.tell("putting it in its place")
    return try place(hasImage: hasImage)
  }

  // MARK: The image

  /// - Returns: whether this site has it, which is the same in every byte then.
  private func checkImage() throws -> Bool {
    let present = machine.image.path
    // SAFETY: stat is a plain C structure that the call fills or leaves.
    var status = stat()
    let isThere = stat(present, &status) == 0
    if let name = manifest.imageName {
      let directory = ImageDirectory(name, stateRoot: stateRoot)
      guard isThere, Files.exists(directory.manifest) else {
        guard !Files.exists(directory.path) else {
          throw BrokerError(
            .conflict, "image '\(name)' is being made or deleted here: try again then")
        }
        return false
      }
    } else if !isThere {
      throw BrokerError(
        .conflict,
        "its image '\(present)' is not here, and was not in the library there: put the same file "
          + "at that place")
    }
    guard status.st_mode & S_IFMT == S_IFREG,
      try FileComparison.areEqual(present, "\(root)/\(manifest.image)")
    else {
      throw BrokerError(
        .conflict,
        manifest.imageName.map {
          "the library has another image '\($0)' than the one that the template is of: delete it, "
            + "or export a template of a pool whose image has another name"
        } ?? "'\(present)' is not the image that the template is of: put that file in its place")
    }
    return true
  }

  // MARK: Trying it

  /// Puts its files where a template's process finds them, apart from the site's own.
  private func prepare() throws -> TemplateRecord {
    let template = trialTemplate
    try Files.makeDirectory(trial)
    for (from, to) in moves(to: template.path) {
      try Files.makeDirectories(
        of: String(to.dropFirst(trial.count + 1)), under: trial)
      try take(from, to: to)
    }
    var machine = machine
    if let library = manifest.libraryImage {
      let image = "\(trial)/\(library)"
      try Files.makeDirectories(of: library, under: trial)
      try take(manifest.image, to: image)
      machine.image.path = image
    }
    try base(template, on: machine.image.path)?
      .checkChain(bases: ImageDirectory.root(trial))
    return record(machine, stamp: "")
  }

  /// Whatever the archive says of its mode, it is its owner's.
  private func take(_ file: String, to place: String) throws {
    try Files.move("\(root)/\(file)", to: place, durably: false)
    guard chmod(place, 0o600) == 0 else {
      throw SystemError(code: errno, "change the mode of \(place)")
    }
  }

  /// Paths in the archive, and in a directory of a template.
  private func moves(to directory: String) -> [(from: String, to: String)] {
    [manifest.memory, manifest.disk, manifest.variables].compactMap(\.self).map { path in
      (path, "\(directory)/\(path.split(separator: "/").last ?? "")")
    }
  }

  private func record(_ machine: TemplateMachine, stamp: String) -> TemplateRecord {
    func name(_ path: String) -> String { String(path.split(separator: "/").last ?? "") }
    return TemplateRecord(
      machine: machine, readiness: manifest.readiness, created: manifest.created,
      sign: manifest.sign, imageStamp: stamp, processor: manifest.processor,
      memory: name(manifest.memory), disk: manifest.disk.map(name),
      hasVariables: manifest.variables != nil)
  }

  /// - Returns: its disk, if that is based on something.
  @discardableResult
  private func base(_ template: TemplateDirectory, on image: String) throws -> ForeignLayer? {
    guard let disk = manifest.disk, manifest.diskFormat == .qcow2 else { return nil }
    let name = disk.split(separator: "/").last ?? ""
    let layer = ForeignLayer(path: "\(template.path)/\(name)", program: program)
    try layer.setBase("raw:\(image)")
    return layer
  }

  /// Has a template's process read and check all of it, and end.
  private func attempt(_ record: TemplateRecord) throws {
    let template = trialTemplate
    let placeholder = DesktopDirectory(
      desktop: DesktopID(pool: template.pool, number: TemplateMaking.number),
      runtimeRoot: runtimeRoot, stateRoot: trial)
    defer { try? Files.remove(template.socket) }
    try Files.remove(template.socket)
    let (tool, errors) = try start(
      VMMCommand(template: record, in: template, placeholder: placeholder).arguments
        + ["--prepared", "0"])
    task.setProcess(tool.child.handle)
    defer { task.setProcess(nil) }
    let serves = (try? TemplateServer.awaitSocket(template, tool.child.handle)) != nil
    try? tool.child.handle.send(.kill)
    _ = try tool.child.wait()
    guard !serves else { return }
    try task.checkWanted()
    var said: [UInt8] = []
    while let bytes = try? errors.read(upTo: 4096), !bytes.isEmpty {
      said = Array((said + bytes).suffix(64 << 10))
    }
    throw BrokerError(
      .invalid, "no desktop can be cloned from it on this host: \(ImageTool.lastLine(of: said))")
  }

  /// It ends with the thread that waits for it. This process's end for writing errors goes when
  /// this returns.
  private func start(_ arguments: [String]) throws -> (ImageTool, errors: FileDescriptor) {
    let errors = try Pipe()
    return (try ImageTool(program, arguments, errors: errors.input), errors.output)
  }

  // MARK: Putting it in its place

  private func place(hasImage: Bool) throws -> Bool {
    let tried = trialTemplate
    try base(tried, on: machine.image.path)
    try template.create()
    var isNew = false
    do {
      for (_, from) in moves(to: tried.path) {
        let name = from.split(separator: "/").last ?? ""
        try Files.move(from, to: "\(template.draft)/\(name)", durably: false)
      }
      try Files.synchronizeAll(in: template.draft)
      if !hasImage, let name = manifest.imageName, let library = manifest.libraryImage {
        let directory = ImageDirectory(name, stateRoot: stateRoot)
        try directory.accept(
          "\(trial)/\(library)",
          .init(
            kind: machine.image.kind, origin: "imported with template \(template.name)",
            created: .wallClock))
        isNew = true
        failpoints.hit("template.import.image")
      }
      let stamp = TemplateRecord.stamp(of: machine.image.path)
      guard stamp != TemplateRecord.noImage else {
        throw BrokerError(.conflict, "its image was deleted here meanwhile: try again")
      }
      try Records.store(record(machine, stamp: stamp), at: "\(template.draft)/template.json")
      try template.finish()
      failpoints.hit("template.import.placed")
      return isNew
    } catch {
      // The error that is told is the first one. A new image stays: somebody may use it already.
      try? template.abandon()
      throw error
    }
  }
}

extension ImageDirectory {
  /// Takes over an image that was made elsewhere on the same file system. Durable when it
  /// returns; when it throws there is no such image, or it is another's.
  func accept(_ file: String, _ manifest: Manifest) throws {
    try makeRoot()
    guard mkdir(path, 0o700) == 0 else {
      guard errno == EEXIST else { throw SystemError(code: errno, "make directory \(path)") }
      throw BrokerError(.conflict, "an image '\(name)' came to the library meanwhile: try again")
    }
    do {
      try Files.move(file, to: draft, durably: false)
      try finish(manifest)
    } catch {
      try? delete()
      throw error
    }
  }
}
