import Brokering
import LinuxSystem
import Logging

/// The site's images, in the state directory.
public actor ImageStore: ImageLibrary {
  private let stateRoot: String
  /// The program that builds Debian images; `nil` where it is not installed.
  private let builder: String?
  private let now: @Sendable () -> Timestamp
  private let logger: Logger
  private var makings: [ImageName: ImageMaking] = [:]
  /// Makings that failed, until somebody deletes the image or makes it again.
  private var failures: [ImageName: LibraryImage] = [:]
  /// So many failures are told at most.
  private static let mostFailures = 100

  /// Removes what an earlier `carreld` left half made.
  public init(
    stateDirectory: String, builder: String?, now: @escaping @Sendable () -> Timestamp,
    logger: Logger
  ) {
    stateRoot = stateDirectory
    self.builder = builder
    self.now = now
    self.logger = logger
    for directory in (try? ImageDirectory.all(stateRoot: stateDirectory)) ?? []
    where !Files.exists(directory.manifest) {
      do {
        // A deletion that was not finished may have been about to be refused.
        let disks = try DiskLayers.byRoot(stateRoot: stateDirectory)
        guard disks[directory.file(.disk)] == nil else {
          try directory.restore()
          continue
        }
        try directory.delete()
        logger.notice("image was not finished, removed", metadata: ["image": "\(directory.name)"])
      } catch {
        logger.warning("\(error)", metadata: ["image": "\(directory.name)"])
      }
    }
  }

  public func images() async throws(BrokerError) -> [LibraryImage] {
    var images = failures
    for (name, making) in makings { images[name] = describe(making, making.state) }
    do {
      let disks = try await disks()
      for directory in try ImageDirectory.all(stateRoot: stateRoot)
      where makings[directory.name] == nil {
        if let image = try directory.load(disks) { images[directory.name] = image }
      }
    } catch let error as BrokerError {
      throw error
    } catch {
      throw BrokerError(.storage, "the images cannot be listed", cause: error)
    }
    return images.values.sorted { $0.name < $1.name }
  }

  /// Desktops' disks by the path of the image that they are based on.
  private func disks() async throws -> [String: [ImageDisk]] {
    let root = stateRoot
    return try await offPool { try DiskLayers.byRoot(stateRoot: root) }
  }

  public func importFile(_ file: String, as name: ImageName) async throws(BrokerError) {
    try checkFree(name)
    let image: ForeignImage
    do {
      image = try await offPool { try ForeignImage(path: file) }
    } catch let error as BrokerError {
      throw error
    } catch {
      throw BrokerError(.host, "'\(file)' cannot be looked at", cause: error)
    }
    try begin(.file(image), as: name)
  }

  public func build(_ recipe: ImageRecipe, as name: ImageName) async throws(BrokerError) {
    guard let builder else {
      throw BrokerError(
        .host,
        "carrel-image-build is not found beside carreld or on PATH: install it with the other "
          + "programs")
    }
    try begin(.recipe(recipe, builder: builder), as: name)
  }

  public func delete(
    _ name: ImageName, isInUse: @escaping @Sendable () async -> Bool
  ) async throws(BrokerError) {
    let failed = failures.removeValue(forKey: name) != nil
    if let making = makings[name] { return making.cancel() }
    let directory = ImageDirectory(name, stateRoot: stateRoot)
    guard Files.exists(directory.manifest) else {
      if failed { return }
      throw BrokerError(.notFound, "there is no image '\(name)': see 'carrel image list'")
    }
    do {
      try await checkNoDisks(on: directory)
      try directory.hide()
      if await isInUse() {
        try directory.restore()
        throw BrokerError(.conflict, "image '\(name)' was given to a pool just now: look again")
      }
      do {
        // A start that was under way may have made one since.
        try await checkNoDisks(on: directory)
      } catch {
        try directory.restore()
        throw error
      }
      try await offPool {
        try directory.delete()
        try Files.remove(directory.log)
      }
    } catch let error as BrokerError {
      throw error
    } catch {
      throw BrokerError(.storage, "image '\(name)' cannot be deleted", cause: error)
    }
  }

  private func checkNoDisks(on directory: ImageDirectory) async throws {
    let desktops = Set(try await disks()[directory.file(.disk)]?.map(\.desktop) ?? []).sorted()
    guard !desktops.isEmpty else { return }
    throw BrokerError(
      .conflict,
      "image '\(directory.name)' is what the disks of "
        + desktops.map(\.rawValue).joined(separator: ", ")
        + " are based on: delete these desktops first, see 'carrel image show "
        + "\(directory.name)'")
  }

  // MARK: Making

  private func checkFree(_ name: ImageName) throws(BrokerError) {
    let directory = ImageDirectory(name, stateRoot: stateRoot)
    guard makings[name] == nil, !Files.exists(directory.path) else {
      throw BrokerError(
        .exists,
        "there is an image '\(name)' already: choose another name, or delete it with "
          + "'carrel image delete \(name)'")
    }
  }

  private func begin(_ source: ImageMaking.Source, as name: ImageName) throws(BrokerError) {
    try checkFree(name)
    let making = ImageMaking(
      source, in: ImageDirectory(name, stateRoot: stateRoot), begun: now())
    do {
      _ = try Thread(name: "image") {
        let result = Result { try making.run() }
        Task { await self.ended(making, result) }
      }
    } catch {
      throw BrokerError(.host, "image '\(name)' cannot be made now", cause: error)
    }
    failures[name] = nil
    makings[name] = making
    logger.info("image begun", metadata: ["image": "\(name)", "source": "\(source.origin)"])
  }

  private func ended(_ making: ImageMaking, _ result: Result<Void, any Error>) {
    let name = making.directory.name
    makings[name] = nil
    switch result {
    case .success: logger.info("image ready", metadata: ["image": "\(name)"])
    case .failure(let error):
      logger.error("image failed: \(error)", metadata: ["image": "\(name)"])
      if failures.count >= Self.mostFailures,
        let oldest = failures.values.min(by: { $0.created < $1.created })
      {
        failures[oldest.name] = nil
      }
      failures[name] = describe(making, .failed(problem: "\(error)"))
    }
  }

  private func describe(_ making: ImageMaking, _ state: LibraryImage.State) -> LibraryImage {
    LibraryImage(
      name: making.directory.name, state: state, kind: making.source.kind,
      path: making.directory.file(making.source.kind), size: 0, allocated: 0,
      origin: making.source.origin, created: making.begun)
  }
}
