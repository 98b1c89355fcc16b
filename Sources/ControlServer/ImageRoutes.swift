import Brokering
import ControlAPI
import Hummingbird

extension ControlServer {
  static func addImageRoutes(
    to router: Router<ControlContext>, _ broker: Broker, _ library: any ImageLibrary
  ) {
    router.get("/v1/images") { _, _ in
      let site = await broker.snapshot
      return answer(try await library.images().map(site.document(of:)))
    }
    router.get("/v1/images/{name}") { _, context in
      try await show(context.name("name", as: ImageName.self), broker, library)
    }
    router.post("/v1/images") { request, _ in
      let creation = try await request.body(as: ImageCreation.self)
      let name = try ImageName(checking: creation.name)
      if let file = creation.file {
        guard creation.suite == nil else {
          throw BrokerError(
            .invalid, "image '\(name)': give either a file to import or a suite to build")
        }
        try await library.importFile(file, as: name)
      } else {
        try await library.build(try ImageRecipe(creation), as: name)
      }
      return try await show(name, broker, library, .accepted)
    }
    router.delete("/v1/images/{name}") { _, context in
      let name = try context.name("name", as: ImageName.self)
      let image = try await library.image(name)
      try await broker.snapshot.checkUnused(image)
      try await library.delete(name) { await !broker.snapshot.pools(from: image).isEmpty }
      return HTTPResponse.Status.noContent
    }
  }

  private static func show(
    _ name: ImageName, _ broker: Broker, _ library: any ImageLibrary,
    _ status: HTTPResponse.Status = .ok
  ) async throws -> JSONAnswer<LibraryImageDocument> {
    answer(await broker.snapshot.document(of: try await library.image(name)), status)
  }
}

extension ImageRecipe {
  fileprivate init(_ creation: ImageCreation) throws(BrokerError) {
    guard let suite = creation.suite else {
      throw BrokerError(
        .invalid, "image '\(creation.name)': give a file to import, or a suite to build")
    }
    try self.init(
      suite: suite, desktop: try choice(creation.desktop, "--desktop") ?? .none,
      sizeMiB: creation.sizeMiB ?? 16 << 10, mirror: creation.mirror)
  }
}

extension Site {
  func pools(from image: LibraryImage) -> [Pool] {
    pools.sorted.filter { $0.image.path == image.path }
  }

  private func users(of image: LibraryImage) -> [UserName] {
    Set(pools(from: image).flatMap { desktops(of: $0.name) }.compactMap(\.owner)).sorted()
  }

  /// Refuses what would take the image from under desktops.
  fileprivate func checkUnused(_ image: LibraryImage) throws(BrokerError) {
    let pools = pools(from: image).map { "'\($0.name)'" }
    guard !pools.isEmpty else { return }
    let users = users(of: image).map(\.rawValue)
    throw BrokerError(
      .conflict,
      "image '\(image.name)' is in use by pool \(pools.joined(separator: ", "))"
        + (users.isEmpty ? "" : ", with desktops of \(users.joined(separator: ", "))")
        + ": give the pool another with 'carrel pool set', or delete the pool")
  }

  fileprivate func document(of image: LibraryImage) -> LibraryImageDocument {
    var document = LibraryImageDocument(
      name: image.name.rawValue, state: "ready", kind: image.kind.rawValue, path: image.path,
      size: image.size, allocated: image.allocated, origin: image.origin,
      created: WireTime(image.created), pools: pools(from: image).map(\.name.rawValue),
      users: users(of: image).map(\.rawValue),
      disks: image.disks.map {
        ImageDiskDocument(
          desktop: $0.desktop.rawValue, owner: desktops[$0.desktop]?.owner?.rawValue,
          name: $0.name, base: $0.base, allocated: $0.allocated, isCurrent: $0.isCurrent)
      })
    switch image.state {
    case .ready: break
    case .making(let step, let percent):
      (document.state, document.step, document.percent) = ("making", step, percent)
    case .failed(let problem): (document.state, document.problem) = ("failed", problem)
    }
    return document
  }
}

extension ImageDocument {
  /// With the path of the library's image where one is named.
  func resolved(in library: any ImageLibrary) async throws -> ImageDocument {
    guard let name, let known = try? ImageName(checking: name),
      let image = try await library.images().first(where: { $0.name == known })
    else { return self }
    guard image.state == .ready else {
      throw BrokerError(
        .conflict,
        "image '\(known)' is not ready: see 'carrel image show \(known)'")
    }
    var document = self
    document.path = image.path
    return document
  }
}
