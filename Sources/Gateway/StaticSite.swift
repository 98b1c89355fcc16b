import Foundation
import NIOCore

/// The files of noVNC, held in memory under the names that browsers ask for. What
/// was not there at the start is not served: no name leads out of the directory.
struct StaticSite: Sendable {
  struct Page: Sendable {
    let type: String
    /// Shared by all that it is being sent to.
    let bytes: ByteBuffer
  }

  /// Debian's noVNC takes 2 MB.
  static let sizeLimit = 32 << 20
  static let startPage = "/vnc.html"

  private let pages: [String: Page]

  init(directory: String) throws {
    var pages: [String: Page] = [:]
    var room = Self.sizeLimit
    let root = URL(filePath: directory, directoryHint: .isDirectory)
    let names = FileManager.default.enumerator(atPath: root.path)
    while let name = names?.nextObject() as? String {
      guard let type = Self.type(of: name),
        !name.split(separator: "/").contains(where: Self.isHidden)
      else { continue }
      let file = root.appending(path: name)
      guard let data = try? Data(contentsOf: file), data.count <= room else { continue }
      room -= data.count
      pages["/" + name] = Page(type: type, bytes: ByteBuffer(bytes: data))
    }
    guard pages[Self.startPage] != nil else {
      throw GatewayError(
        .site,
        "\(directory) holds no vnc.html: install the package novnc, or name its directory")
    }
    self.pages = pages
  }

  /// What a request's target asks for, the query left aside; `nil` when there is none.
  func page(for target: String) -> Page? {
    let path = target.prefix { $0 != "?" && $0 != "#" }
    return pages[path.removingPercentEncoding ?? String(path)]
  }

  private static func isHidden(_ part: Substring) -> Bool { part.hasPrefix(".") }

  private static func type(of name: String) -> String? {
    switch name.split(separator: ".").last {
    case "html": "text/html; charset=utf-8"
    case "js": "text/javascript; charset=utf-8"
    case "css": "text/css; charset=utf-8"
    case "json": "application/json"
    case "svg": "image/svg+xml"
    case "png": "image/png"
    case "ico": "image/x-icon"
    case "ttf": "font/ttf"
    case "woff": "font/woff"
    case "woff2": "font/woff2"
    case "oga": "audio/ogg"
    case "mp3": "audio/mpeg"
    default: nil
    }
  }
}
